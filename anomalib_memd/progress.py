"""Telling how far a loop is: a bar in a terminal, and a line every so often without one."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

EVERY = 30.0
"""Seconds between two lines."""


def track(items: Iterable[Item], what: str, total: int | None = None, hidden: bool = False) -> Iterator[Item]:
    """Go through items, and tell on standard error how far that is.

    Args:
        items: What to go through; it may be endless.
        what: What is done, for people.
        total: Number of items; that of ``items`` if it has one.
        hidden: Whether to tell nothing.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    if hidden or sys.stderr.isatty():
        yield from tqdm(items, what, total, disable=hidden, leave=False)
        return
    started = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= EVERY:
            print(line(what, done, total, now - started), file=sys.stderr, flush=True)  # noqa: T201
            told = now
        yield item


def line(what: str, done: int, total: int | None, seconds: float) -> str:
    """What is told without a terminal.

    Args:
        what: What is done.
        done: Number of items that are done.
        total: Number of all items, if it is known.
        seconds: How long these took.
    """
    if not total or not done:
        return f"{what}: {done} done in {seconds:.0f} s"
    left = seconds / done * (total - done)
    return f"{what}: {done} of {total} ({done / total:.0%}) in {seconds:.0f} s, about {left:.0f} s left"
