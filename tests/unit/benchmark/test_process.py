"""Work in a process of its own: it returns, it may be killed, and it does not outlive who asked for it."""

import multiprocessing
import operator
import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import psutil
import pytest

from anomalib_memd.benchmark.process import run_apart

CODE = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from anomalib_memd.benchmark.process import run_apart

SLEEP = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"

if __name__ == "__main__":
    if sys.argv[1] == "itself":
        run_apart(exec, SLEEP)
    else:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(run_apart, exec, SLEEP).result()
"""


def test_it_returns_what_another_process_found():
    assert run_apart(operator.add, 2, 3) == 5
    assert run_apart(os.getpid) != os.getpid()
    assert run_apart(multiprocessing.get_start_method) == multiprocessing.get_start_method()


def test_an_error_arrives_and_a_killed_process_is_no_end():
    with pytest.raises(ZeroDivisionError):
        run_apart(operator.truediv, 1, 0)
    with pytest.raises(BrokenProcessPool):
        run_apart(os.abort)
    assert run_apart(operator.add, 2, 3) == 5


@pytest.mark.parametrize("asked_by", ["itself", "a worker"])
@pytest.mark.slow
def test_it_ends_with_the_one_who_asked(tmp_path, asked_by):
    script, pid = tmp_path / "sleep.py", tmp_path / "pid"
    script.write_text(CODE)
    parent = subprocess.Popen([sys.executable, script, asked_by], cwd=tmp_path)
    while not (pid.exists() and pid.read_text()):
        assert parent.poll() is None
        time.sleep(0.2)
    sleeper = psutil.Process(int(pid.read_text()))
    parent.kill()
    parent.wait()
    assert psutil.wait_procs([sleeper], timeout=300)[1] == []
