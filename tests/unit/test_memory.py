import platform
import subprocess
import sys

import pytest

from anomalib_memd import memory

CODE = """
import resource, runpy, sys
import numpy as np

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.ones(2**26, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

module, keep = sys.argv[1:]
if keep == "keep":
    runpy.run_path(module)["keep_freed_memory"]()
faults()
print(faults())
"""


def page_faults(mode):
    command = [sys.executable, "-c", CODE, memory.__file__, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not a system with glibc")
def test_freed_memory_is_used_again():
    assert page_faults("return") > 200  # One for each huge page at least.
    assert page_faults("keep") < 20
