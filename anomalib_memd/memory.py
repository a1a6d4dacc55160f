"""Memory of the process."""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import psutil

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # From glibc's malloc.h.


@cache
def keep_freed_memory(share: float = 0.5) -> None:
    """Let the process keep the memory that it frees, for what it allocates next.

    glibc gives large blocks back to the system at once and fetches them anew, page by page, for the result of every
    layer of a network, which on a CPU can take as long as the arithmetic. Before a fork, as those for the workers of
    data loaders, what is free is given back, since the child would hold on to it. So it is where the process has
    grown large, since free memory may lie in pieces that nothing fits into. On systems without glibc nothing changes.

    Args:
        share: How much the process may grow before it gives back what is free, as a share of the machine's memory
            that it did not use when it last did so.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        os.register_at_fork(before=give_back_freed_memory)
        threading.Thread(target=_give_back_when_grown, args=(share,), daemon=True).start()


@contextmanager
def reusable_memory() -> Iterator[None]:
    """Let processes that are started meanwhile use freed memory again as it is.

    Of an aligned block, as tensors are, glibc 2.36 cuts small pieces off and caches them for the thread. A block
    that is freed between them is some bytes short for the next of its size, and memory grows. That cache can only be
    turned off at the start of a program; those that allocate by the megabyte do not miss it.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    with patch.dict(os.environ, GLIBC_TUNABLES=f"{given}:glibc.malloc.tcache_count=0".lstrip(":")):
        yield


def give_back_freed_memory() -> None:
    """Give the memory that the process keeps and does not use back to the system."""
    if libc := _glibc():
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def _give_back_when_grown(share: float, interval: float = 0.2) -> None:
    process, total = psutil.Process(), psutil.virtual_memory().total
    limit = share * total
    while True:
        if process.memory_info().rss > limit:
            give_back_freed_memory()
            used = process.memory_info().rss
            limit = used + share * (total - used)
        time.sleep(interval)
