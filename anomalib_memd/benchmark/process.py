"""Work in a process of its own."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from anomalib_memd.memory import keep_freed_memory, reusable_memory


def run_apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do something in a new process, which uses its memory well and gives all of it back.

    The process ends with the one that has started it.

    Args:
        work: Function that another process can import.
        arguments: What it is called with.

    Returns:
        What it returns.

    Raises:
        BrokenProcessPool: If the process was killed.
    """
    usual = multiprocessing.get_start_method()
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["anomalib_memd.benchmark.job"])  # What takes seconds to import is there.
    with reusable_memory(), ProcessPoolExecutor(1, context, _begin, (usual,)) as pool:
        return pool.submit(work, *arguments).result()


def _begin(start_method: str) -> None:
    # Data loaders are to start their workers as ever, not as this process was.
    multiprocessing.set_start_method(start_method, force=True)
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
