"""Files at addresses such as ``s3://bucket/folder``, by fsspec."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec


def is_address(source: str | Path) -> bool:
    """Whether this is an address, and no path."""
    return "://" in str(source)


def find_addresses(source: str, suffixes: Iterable[str]) -> Iterator[str]:
    """Addresses of files, folder by folder, each in the order of names; no more is listed than is needed.

    Args:
        source: Address of a file, of a folder, or a pattern such as ``s3://bucket/**/*.png``.
        suffixes: Of the files that count, in lower case.

    Raises:
        RuntimeError: If there is no access to the address.
    """
    known = tuple(suffixes)
    with _access(source):
        system, path = fsspec.core.url_to_fs(source)
        if any(sign in path for sign in "*?["):
            found: Iterable[str] = sorted(system.glob(path))
        elif system.isfile(path):
            found = [path]
        else:
            found = _walk(system, path)
        for name in found:
            if name.lower().endswith(known):
                yield system.unstrip_protocol(name)


@contextmanager
def local_copy(address: str) -> Iterator[Path]:
    """A copy of the file at an address, which is removed afterwards.

    Args:
        address: The address.

    Raises:
        RuntimeError: If it cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="anomalib-memd-") as folder:
        copy = Path(folder) / Path(address).name
        with _access(address):
            system, path = fsspec.core.url_to_fs(address)
            system.get_file(path, str(copy))
        yield copy


def _walk(system: Any, folder: str) -> Iterator[str]:
    for path, folders, files in system.walk(folder):
        folders.sort()
        yield from (f"{path}/{name}" for name in sorted(files))


@contextmanager
def _access(address: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, ValueError, OSError) as error:
        msg = f"{address}: no access to it ({type(error).__name__}: {error})."
        raise RuntimeError(msg) from error
