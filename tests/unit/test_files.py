"""Files that appear whole, and folders that one process uses at a time."""

import subprocess
import sys

import pytest

from anomalib_memd.files import used_alone, written_whole


def test_a_file_that_fails_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with written_whole(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()

    def fail():
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_has_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "file [1].txt"
    held = f"""
import os, pathlib, signal
from anomalib_memd.files import written_whole
with written_whole(pathlib.Path({str(path)!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", held], check=False)
    (left,) = tmp_path.iterdir()
    with written_whole(path) as temporary:
        temporary.write_text("whole")
        assert not left.exists()
        with written_whole(path) as other:  # That of a living process stays.
            other.write_text("other")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "whole"


def test_a_folder_is_used_by_one_process_until_it_ends(tmp_path):
    folder = tmp_path / "results"
    held = f"""
import sys, pathlib
from anomalib_memd.files import used_alone
with used_alone(pathlib.Path({str(folder)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(RuntimeError, match=r"results is in use by another run"), used_alone(folder, patience=0):
        pass
    other.kill()
    other.wait()
    with used_alone(folder):
        pass
    with used_alone(folder, patience=0):
        pass
