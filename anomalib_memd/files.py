"""Files and folders: their digests, writing them whole, and using them alone."""

import glob
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

_LOCK = ".lock"


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's content, as hexadecimal digits.

    Args:
        path: The file.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_yaml(path: Path, what: str, error: type[Exception]) -> Any:
    """Plain content of a YAML file.

    Args:
        path: The file.
        what: What it should be, for the message.
        error: What is raised if it cannot be read.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        msg = f"{path}: no readable {what} ({' '.join(str(cause).split())})."
        raise error(msg) from cause


@contextmanager
def workspace(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder for what is not finished, removed in the end.

    One that a killed process has left is removed by the next that asks for one of the same prefix.

    Args:
        parent: The folder it is in.
        prefix: What its name begins with.
    """
    for left in parent.glob(f"{glob.escape(prefix)}*/{_LOCK}"):
        with suppress(Timeout, OSError), FileLock(left, timeout=0):
            shutil.rmtree(left.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True) as folder:
        lock = FileLock(Path(folder) / _LOCK)
        lock.acquire()
        try:
            yield Path(folder)
        finally:
            lock.release()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Let a file, or a new folder, appear only once it is complete; if writing fails, what was there stays.

    Args:
        path: The file or folder; the folder it is in is made if needed.

    Yields:
        Where to write, in a folder of its own beside it, with the same name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with workspace(path.parent, f".{path.name}.part-") as folder:
        temporary = folder / path.name
        yield temporary
        temporary.replace(path)


@contextmanager
def used_alone(folder: Path, patience: float = 10) -> Iterator[None]:
    """Keep other processes that ask for it too out of a folder, which is made if needed.

    Args:
        folder: The folder.
        patience: Seconds to wait for another process; those that load data outlive one that was killed by a few.

    Raises:
        RuntimeError: If another process keeps the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        msg = f"{folder} is in use by another run; wait until it has ended, or choose another folder."
        raise RuntimeError(msg) from error
    try:
        yield
    finally:
        lock.release()
