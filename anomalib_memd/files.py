"""Files: their digests, and writing them whole."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's content, as hexadecimal digits.

    Args:
        path: The file.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Let a file, or a new folder, appear only once it is complete; if writing fails, what was there stays.

    Args:
        path: The file or folder; the folder it is in is made if needed.

    Yields:
        Where to write, in a folder of its own beside it, with the same name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".", suffix=".part") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        temporary.replace(path)
