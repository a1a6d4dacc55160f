"""Frames of a video file or a live source, and writing a video."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".wmv", ".m4v", ".ts")


class VideoError(ValueError):
    """A video that cannot be read or written."""


def is_live(source: str | Path) -> bool:
    """Whether a source goes on by itself: a camera, such as ``/dev/video0``, or the address of a stream."""
    return "://" in str(source) or str(source).startswith("/dev/")


def frame_rate(source: str | Path) -> float:
    """Frames a second; 25 where the source does not tell.

    Raises:
        VideoError: If the source holds no video.
    """
    with _opened(source) as container:
        rate = container.streams.video[0].average_rate
    return float(rate) if rate else 25.0


def number_of_frames(source: str | Path) -> int | None:
    """Number of frames, where the file tells it."""
    with _opened(source) as container:
        return container.streams.video[0].frames or None


def read_video(source: str | Path) -> Iterator[tuple[float, np.ndarray]]:
    """Frames of a video, one after the other.

    Args:
        source: A file, or a live source.

    Yields:
        Seconds since the first frame, and the frame as sRGB of 8 bits, ``(H, W, 3)``.

    Raises:
        VideoError: If PyAV is not installed, or the source holds no video, or is damaged; what was read before is
            yielded.
    """
    with _opened(source) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or 25)
        first, number = None, 0
        try:
            for frame in container.decode(stream):
                second = frame.time if frame.time is not None else number / rate
                first = second if first is None else first
                yield second - first, frame.to_ndarray(format="rgb24")
                number += 1
        except _av().error.FFmpegError as error:
            msg = f"{source}: damaged after frame {number} ({error})."
            raise VideoError(msg) from error
        if not number:
            msg = f"{source}: holds no frame."
            raise VideoError(msg)


class LiveFrames:
    """Frames of a live source; where they come faster than they are taken, the oldest that wait are dropped.

    Args:
        source: Camera or address.
        waiting: Number of frames that wait at most.

    Attributes:
        dropped: Number of frames that nobody took.
    """

    def __init__(self, source: str | Path, waiting: int = 2) -> None:
        self.source = source
        self.dropped = 0
        self._frames: deque[tuple[float, np.ndarray]] = deque()
        self._size = waiting
        self._changed = threading.Condition()
        self._ended: BaseException | bool = False
        self._stop = False

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Seconds since the first frame, and frames, as of :func:`read_video`.

        Raises:
            VideoError: If the source cannot be read.
        """
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._frames or self._ended)
                    if not self._frames:
                        break
                    item = self._frames.popleft()
                yield item
        finally:
            self._stop = True
            thread.join(timeout=5)
        if isinstance(self._ended, BaseException):
            raise self._ended

    def _read(self) -> None:
        ended: BaseException | bool = True
        started = time.monotonic()
        try:
            for second, image in read_video(self.source):
                if not is_live(self.source):
                    time.sleep(max(0.0, second - (time.monotonic() - started)))  # A file played as a camera.
                with self._changed:
                    if len(self._frames) == self._size:
                        self._frames.popleft()
                        self.dropped += 1
                    self._frames.append((second, image))
                    self._changed.notify()
                if self._stop:
                    break
        except BaseException as error:
            ended = error
        with self._changed:
            self._ended = ended
            self._changed.notify()


class VideoWriter:
    """Writes an MP4, frame by frame.

    Args:
        path: The file.
        rate: Frames a second.

    Raises:
        VideoError: If PyAV is not installed.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._container = _av().open(str(path), "w", format="mp4")
        self._rate = Fraction(rate).limit_denominator(1001)
        self._stream: Any = None
        self._last = -1

    def write(self, second: float, image: np.ndarray) -> None:
        """Add a frame; sides of an odd length lose their last pixel.

        Args:
            second: When it is shown, in seconds.
            image: sRGB of 8 bits, ``(H, W, 3)``; later frames have the size of the first.
        """
        av = _av()
        height, width = (side - side % 2 for side in image.shape[:2])
        if self._stream is None:
            codec = next(name for name in ("libx264", "libopenh264", "mpeg4") if name in av.codecs_available)
            self._stream = self._container.add_stream(codec, rate=self._rate)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, 1000)
            if codec == "libx264":
                self._stream.options = {"crf": "16"}  # Fine texture stays.
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
        self._last = max(self._last + 1, round(second * 1000))  # Time stamps rise.
        frame.pts, frame.time_base = self._last, Fraction(1, 1000)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """End the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


@contextmanager
def _opened(source: str | Path) -> Iterator[Any]:
    av = _av()
    form = "v4l2" if str(source).startswith("/dev/") else None
    if not is_live(source) and not Path(source).is_file():
        msg = f"{source}: no such video."
        raise VideoError(msg)
    try:
        container = av.open(str(source), format=form)
    except (av.error.FFmpegError, ValueError) as error:
        msg = f"{source}: cannot be opened as a video ({error})."
        raise VideoError(msg) from error
    with container:
        if not container.streams.video:
            msg = f"{source}: holds no video."
            raise VideoError(msg)
        yield container


def _av() -> Any:
    try:
        import av  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        msg = "Videos need PyAV; run: pip install 'anomalib-memd[video]'."
        raise VideoError(msg) from error
    return av
