import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from anomalib_memd import memory

CODE = """
import os, resource, runpy, sys, time
from pathlib import Path
import numpy as np

def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.ones(2**26, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

module, mode = sys.argv[1:]
memory = runpy.run_path(module)
if mode != "return":
    memory["keep_freed_memory"]()
work()
faults, held = work(), resident()
if mode == "grown":
    memory["keep_freed_memory"](0.0)
    until = time.monotonic() + 60
    while held - resident() <= 2**25 and time.monotonic() < until:
        time.sleep(0.1)
else:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
print(faults, held - resident())
"""


def measure(mode):
    """Page faults of repeated allocation, and bytes that a fork, or having grown beyond nothing, gives back."""
    command = [sys.executable, "-c", CODE, memory.__file__, mode]
    return map(int, subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout.split())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not a system with glibc")
def test_freed_memory_is_used_again_until_a_fork():
    faults, returned = measure("return")
    assert faults > 200  # One for each huge page at least.
    assert returned < 2**25
    faults, returned = measure("keep")
    assert faults < 20
    assert returned > 2**25


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not a system with glibc")
def test_a_large_process_gives_back_what_is_free():
    _, returned = measure("grown")
    assert returned > 2**25


ALIGNED = """
import ctypes, os
from pathlib import Path

MIB = 2**20
libc = ctypes.CDLL(None)
libc.free.argtypes = [ctypes.c_void_p]
libc.mallopt(-4, 0)
libc.mallopt(-1, -1)

def used(size):
    block = ctypes.c_void_p()
    assert libc.posix_memalign(ctypes.byref(block), 64, size) == 0
    return ctypes.memset(block, 1, size)

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before, kept = resident(), None
for step in range(100):
    large, small = used(32 * MIB), used(MIB + 64 * (step % 7))
    libc.free(large)
    before_last, kept = kept, used(MIB + 64 * (step % 5))
    libc.free(before_last)
    libc.free(small)
print((resident() - before) / MIB)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not a system with glibc")
def test_aligned_blocks_are_used_again(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=0")
    with memory.reusable_memory():
        assert os.environ["GLIBC_TUNABLES"].startswith("glibc.malloc.perturb=0:")
        done = subprocess.run([sys.executable, "-c", ALIGNED], check=True, capture_output=True, text=True)
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.perturb=0"
    assert 32 < float(done.stdout) < 40  # A large block and two or three small ones; glibc 2.36 by itself: 161.


def test_what_a_large_process_uses_raises_its_limit(monkeypatch):
    class Process:
        """Uses 60 of 100 bytes, and holds ever more of what it has freed, until that is given back."""

        used, freed, largest, returns = 60, 0, 0, 0

        def memory_info(self):
            return SimpleNamespace(rss=self.used + self.freed)

        def give_back(self):
            self.freed, self.returns = 0, self.returns + 1

        def work(self, _):
            self.freed += 1
            self.largest = max(self.largest, self.used + self.freed)
            if self.returns == 5 or self.freed == 100:
                raise InterruptedError

    process = Process()
    monkeypatch.setattr(memory.psutil, "Process", lambda: process)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=100))
    monkeypatch.setattr(memory, "give_back_freed_memory", process.give_back)
    monkeypatch.setattr(memory.time, "sleep", process.work)
    with pytest.raises(InterruptedError):
        memory._give_back_when_grown(0.5)
    assert process.largest == 81  # The first time at once, since 60 is above half of all; then above 80.
