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
import time
from anomalib_memd.benchmark.process import run_apart

if __name__ == "__main__":
    run_apart(time.sleep, 600)
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


def test_it_ends_with_the_one_who_asked(tmp_path):
    script = tmp_path / "sleep.py"
    script.write_text(CODE)
    parent = subprocess.Popen([sys.executable, script])
    family = psutil.Process(parent.pid)

    def workers():
        return [p for p in family.children(recursive=True) if p.num_threads() > 1]

    while not workers():
        assert parent.poll() is None
        time.sleep(0.2)
    (worker,) = workers()
    parent.kill()
    parent.wait()
    assert psutil.wait_procs([worker], timeout=30)[1] == []
