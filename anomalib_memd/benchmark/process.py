"""Work in a process of its own."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing.process import BaseProcess
from typing import Any

from anomalib_memd.memory import keep_freed_memory, reusable_memory


def run_apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do something in a new process, which uses its memory well and gives all of it back.

    The process ends with the one that has started it, and that, if it is a worker, with the one it works for.

    Args:
        work: Function that another process can import.
        arguments: What it is called with.

    Returns:
        What it returns.

    Raises:
        BrokenProcessPool: If the process was killed.
    """
    _end_with_parent()
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
    _end_with_parent()


@cache
def _end_with_parent() -> None:
    """Let a worker end once the process that has started it has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(process: BaseProcess) -> None:
    process.join()
    os._exit(1)
