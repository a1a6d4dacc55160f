"""Memory of the process."""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

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
        share: Share of the machine's memory above which the process gives back what is free.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        os.register_at_fork(before=lambda: libc.malloc_trim(0))
        limit = share * psutil.virtual_memory().total
        threading.Thread(target=_trim_above, args=(limit, libc.malloc_trim), daemon=True).start()


def _trim_above(limit: float, trim: Callable[[int], object], interval: float = 0.2) -> None:
    process = psutil.Process()
    while True:
        if process.memory_info().rss > limit:
            trim(0)
        time.sleep(interval)
