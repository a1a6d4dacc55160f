"""What the page takes, and for how long it holds it."""

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]

LARGEST_UPLOAD = 4 << 30
"""Number of bytes that are taken at a time."""
LONGEST_UPLOAD = 600.0
"""Number of seconds that they may take."""


class UploadLimit:
    """Refuses what is uploaded once it grows too large, or takes too long. It is middleware of ASGI.

    Args:
        app: The application behind it.
        size: Largest number of bytes of a request.
        seconds: Longest time of a request.
    """

    def __init__(self, app: Callable, size: int = LARGEST_UPLOAD, seconds: float = LONGEST_UPLOAD) -> None:
        self.app, self.size, self.seconds = app, size, seconds

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or not scope["path"].rstrip("/").endswith("/upload"):
            await self.app(scope, receive, send)
            return
        deadline, taken, answered = asyncio.get_running_loop().time() + self.seconds, 0, False

        async def limited() -> Message:
            nonlocal taken
            async with asyncio.timeout_at(deadline):
                message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.size:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, limited, noted)
        except (_TooLargeError, TimeoutError) as error:
            if answered:
                raise
            late = isinstance(error, TimeoutError)
            limit = f"{self.seconds:.0f} s" if late else f"{self.size / 1e9:.1f} GB"
            text = f"An upload has a limit of {limit}; drop fewer files.".encode()
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 408 if late else 413, "headers": headers})
            await send({"type": "http.response.body", "body": text})


class _TooLargeError(Exception):
    """More bytes than are taken."""


class Sessions:
    """What each open page holds on the disk; it goes when the page is closed.

    Args:
        cache: Folder in which copies of what the page shows are kept.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._held: dict[str, set[Path]] = defaultdict(set)

    def hold(self, session: str, folder: Path, files: Iterable[str | Path]) -> None:
        """Note what a page shows from now on; what it has shown before goes.

        Args:
            session: The page.
            folder: Folder of its pictures and tables.
            files: What was uploaded.
        """
        files = {Path(file) for file in files}
        for path in self._held.pop(session, set()) - files:
            self._remove(path)
        self._held[session] = {folder, *files}

    def end(self, session: str) -> None:
        """Remove all that a page holds."""
        for path in self._held.pop(session, set()):
            self._remove(path)

    def _remove(self, path: Path) -> None:
        if path.is_dir():
            # Copies of pictures have the name of the folder in theirs.
            for copy in self.cache.rglob(f"{path.name}*"):
                copy.unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
        elif self.cache in path.parents:  # Nothing of the user's own.
            path.unlink(missing_ok=True)
