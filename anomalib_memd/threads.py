"""Threads of the process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread, as a block or as a decorator.

    Arithmetic of less than a millisecond gains nothing from a second one. Where the cores are busy, as with
    OpenVINO, it waits for that one's turn, which took five times as long as the arithmetic.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
