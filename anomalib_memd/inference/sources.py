"""Where frames come from: a file, a folder, a video, or all that a pattern matches."""

import glob
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from anomalib_memd.data.reading import IMAGE_SUFFIXES, ImageReadError, frame_names, read_array

from .archive import find_addresses, is_address, local_copy
from .video_file import VIDEO_SUFFIXES, VideoError, read_video

Item = TypeVar("Item")

SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
"""Of the files that have frames."""
READ_AHEAD = 16
"""Number of frames that are read before they are needed."""


class Frame(NamedTuple):
    """A frame, or why there is none."""

    name: str
    """Path of its file; of one frame of several ``FILE#NUMBER``."""
    image: np.ndarray | None
    """sRGB of 8 bits, ``(H, W, 3)``."""
    error: str = ""


def find_files(source: str | Path) -> Iterator[str]:
    """Files with images or videos, in the order of their names; nothing is listed before it is needed.

    Args:
        source: A file, a folder of any depth, or a pattern such as ``frames/**/*.png``; or an address of these, see
            :mod:`.archive`.

    Raises:
        FileNotFoundError: If there is none.
        RuntimeError: If there is no access to an address.
    """
    path = Path(source)
    if is_address(source):
        found = find_addresses(str(source), SUFFIXES)
    elif path.is_dir():
        found = map(str, _walk(path))
    elif path.exists():
        found = iter([str(path)])
    else:
        matches = sorted(glob.glob(str(source), recursive=True))  # noqa: PTH207  patterns may be absolute
        found = (name for name in matches if _is_known(Path(name)))
    first = next(found, None)
    if first is None:
        msg = f"{source}: no image and no video there ({', '.join(SUFFIXES)})."
        raise FileNotFoundError(msg)
    yield first
    yield from found


def read_frames(files: Iterable[str | Path], skip: Callable[[str], bool] = lambda _: False) -> Iterator[Frame]:
    """Read frames one after the other; a file that cannot be read gives an error in place of a frame.

    Args:
        files: Files, see :func:`find_files`.
        skip: Whether the frame of a name is not wanted; its file is not read then.
    """
    for file in map(str, files):
        if not is_address(file):
            yield from _frames_of(Path(file), skip)
            continue
        if skip(file):
            continue
        try:
            with local_copy(file) as copy:
                for frame in _frames_of(copy, lambda name, copy=copy, file=file: skip(_renamed(name, copy, file))):
                    yield frame._replace(name=_renamed(frame.name, copy, file), error=_renamed(frame.error, copy, file))
        except RuntimeError as error:
            yield Frame(file, None, str(error))


def _renamed(text: str, copy: Path, file: str) -> str:
    return text.replace(str(copy), file)


def _frames_of(path: Path, skip: Callable[[str], bool]) -> Iterator[Frame]:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _video_frames(path, skip)
        return
    try:
        names = frame_names(path)
    except ImageReadError as error:
        if not skip(str(path)):
            yield Frame(str(path), None, str(error))
        return
    for name in names:
        if skip(name):
            continue
        try:
            yield Frame(name, read_array(name))
        except ImageReadError as error:
            yield Frame(name, None, str(error))


def ahead(items: Iterable[Item], depth: int = READ_AHEAD) -> Iterator[Item]:
    """Draw items in a thread of their own, a few more than are needed at the moment.

    Args:
        items: What to go through.
        depth: Number of items that wait at most.
    """
    waiting: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, object]) -> None:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return

    def draw() -> None:
        try:
            for item in items:
                put((True, item))
                if stopped.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        while True:
            more, item = waiting.get()
            if more:
                yield item  # type: ignore[misc]
            elif item is None:
                return
            else:
                raise item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def _walk(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # A link that leads back up.
        return
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in names:
        path = folder / name
        if is_folder:
            yield from _walk(path, (*above, real))
        elif _is_known(path):
            yield path


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _video_frames(path: Path, skip: Callable[[str], bool]) -> Iterator[Frame]:
    try:
        for number, (_, image) in enumerate(read_video(path)):
            name = f"{path}#{number}"
            if not skip(name):
                yield Frame(name, image)
    except VideoError as error:
        yield Frame(str(path), None, str(error))
