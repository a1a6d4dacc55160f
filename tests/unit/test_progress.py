"""Telling how far a loop is."""

import sys

import pytest

from anomalib_memd import progress
from anomalib_memd.progress import line, track


def test_without_a_terminal_there_is_a_line_every_so_often(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert list(track(range(10), "Reading")) == list(range(10))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Reading: 2 of 10 (20%) in 30 s, about 120 s left",
        "Reading: 5 of 10 (50%) in 60 s, about 60 s left",
        "Reading: 8 of 10 (80%) in 90 s, about 22 s left",
    ]


def test_short_loops_and_hidden_ones_say_nothing(capsys):
    assert list(track(range(5), "Reading")) == list(range(5))
    assert list(track(range(5), "Reading", hidden=True)) == list(range(5))
    assert capsys.readouterr().err == ""


def test_in_a_terminal_there_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(track(range(3), "Reading")) == [0, 1, 2]
    assert "Reading" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (("Frames", 7, None, 3.0), "Frames: 7 done in 3 s"),
        (("Frames", 0, 10, 3.0), "Frames: 0 done in 3 s"),
        (("Frames", 5, 10, 3.0), "Frames: 5 of 10 (50%) in 3 s, about 3 s left"),
    ],
)
def test_a_line_says_what_is_left_if_that_is_known(facts, expected):
    assert line(*facts) == expected


def test_the_clock_is_that_of_the_module():
    assert progress.EVERY == 30.0
