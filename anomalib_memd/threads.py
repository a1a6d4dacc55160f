"""Threads of the process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread, as a block or as a decorator.

    Arithmetic of a millisecond gains little from a second one. Where the cores are busy, as with OpenVINO, it waits
    some milliseconds until that one has its turn.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
