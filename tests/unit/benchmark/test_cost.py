"""What a method costs."""

import subprocess
import sys

import pytest

from anomalib_memd.benchmark.cost import measure_cost, times_ms
from tests.conftest import deployable_memd

# In a process of its own, as a child counts as much as its parent until it has begun by itself.
CODE = """
import subprocess, sys, time
import numpy as np
from anomalib_memd.benchmark.cost import PeakMemory

CHILD = "import sys, numpy; held = numpy.ones(100_000_000); print(flush=True); sys.stdin.read()"

def peak(action):
    with PeakMemory(interval=0.01) as memory:
        action()
    return memory.peak

def wait():
    time.sleep(2)  # Long enough for a sample, however busy the machine.

def hold():
    held = np.ones(100_000_000)
    wait()

def start_child():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    wait()
    child.communicate()

idle = peak(wait)
print(idle, peak(hold) - idle, peak(start_child) - idle)
"""


@pytest.mark.slow
def test_peak_memory_counts_children_and_what_is_freed_again():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    idle, held, by_child = map(int, done.stdout.split())
    assert idle > 0.05e9
    assert 0.78e9 < held < 0.9e9
    assert 0.78e9 < by_child < 0.78e9 + 2 * idle


@pytest.mark.slow
def test_what_is_used_at_two_sizes_is_stored_once(tmp_path):
    pytest.importorskip("openvino")
    cost = measure_cost(deployable_memd(), tmp_path, side=64, repeats=1)
    assert cost["parameters"] == pytest.approx(cost["file_bytes"] / 4, rel=0.01)


def test_times_leave_out_the_warm_up():
    calls = []
    assert len(times_ms(lambda: calls.append(1), repeats=4, warm_up=2)) == 4
    assert len(calls) == 6
