"""What a method costs."""

import subprocess
import sys
import time

import numpy as np

from anomalib_memd.benchmark.cost import PeakMemory, times_ms

CHILD = "import sys, numpy; held = numpy.ones(25_000_000); print(flush=True); sys.stdin.read()"


def test_peak_memory_counts_children_and_what_is_freed_again():
    def peak(action):
        with PeakMemory(interval=0.01) as memory:
            action()
        return memory.peak

    def wait():
        time.sleep(2)  # Long enough for a sample, however busy the machine.

    def hold():
        held = np.ones(50_000_000)
        wait()
        del held

    def start_child():
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        wait()
        child.communicate()

    idle = peak(wait)
    assert idle > 0.05e9
    assert 0.38e9 < peak(hold) - idle < 0.5e9
    assert 0.19e9 < peak(start_child) - idle < 0.5e9


def test_times_leave_out_the_warm_up():
    calls = []
    assert len(times_ms(lambda: calls.append(1), repeats=4, warm_up=2)) == 4
    assert len(calls) == 6
