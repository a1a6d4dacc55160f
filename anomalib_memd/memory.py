"""Memory of the process."""

import ctypes
import os
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # From glibc's malloc.h.


@cache
def keep_freed_memory() -> None:
    """Let the process keep the memory that it frees, for what it allocates next.

    glibc gives large blocks back to the system at once and fetches them anew, page by page, for the result of every
    layer of a network, which on a CPU can take as long as the arithmetic. Before a fork, as those for the workers of
    data loaders, what is free is given back, since the child would hold on to it. On systems without glibc nothing
    changes.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        os.register_at_fork(before=lambda: libc.malloc_trim(0))
