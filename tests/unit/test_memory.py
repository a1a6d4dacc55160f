import platform
import subprocess
import sys

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

module, keep = sys.argv[1:]
if keep != "return":
    runpy.run_path(module)["keep_freed_memory"](*map(float, keep.split()))
work()
faults, held = work(), resident()
if keep == "0":
    time.sleep(3)
else:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
print(faults, held - resident())
"""


def measure(mode):
    """Page faults of repeated allocation, and bytes that a fork, or with a share of 0 time, gives back."""
    command = [sys.executable, "-c", CODE, memory.__file__, mode]
    return map(int, subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout.split())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not a system with glibc")
def test_freed_memory_is_used_again_until_a_fork():
    faults, returned = measure("return")
    assert faults > 200  # One for each huge page at least.
    assert returned < 2**25
    faults, returned = measure("0.5")
    assert faults < 20
    assert returned > 2**25


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not a system with glibc")
def test_a_large_process_gives_back_what_is_free():
    _, returned = measure("0")
    assert returned > 2**25
