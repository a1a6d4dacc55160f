"""Memory of the process."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # From glibc's malloc.h.


def keep_freed_memory() -> None:
    """Let the process keep the memory that it frees, for what it allocates next.

    glibc gives large blocks back to the system at once and fetches them anew, page by page, for the result of every
    layer of a network, which on a CPU can take as long as the arithmetic. The process then stays as large as it once
    was. On systems without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
