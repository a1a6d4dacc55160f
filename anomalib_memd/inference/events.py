"""Events in a video: when something abnormal is in sight."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from anomalib_memd.deployment.stream import FramePrediction

from .quality import Defect


class TimedFrame(NamedTuple):
    """A frame of a video, and what was made of it."""

    number: int
    """From 0."""
    second: float
    """Since the first frame."""
    image: np.ndarray
    """sRGB of 8 bits, ``(H, W, 3)``."""
    defect: Defect | None
    """Why it was left out."""
    prediction: FramePrediction | None
    """``None`` if it was left out."""
    smoothed: float = float("nan")
    """Score, averaged over time; not a number if the frame was left out."""


@dataclass(frozen=True)
class Event:
    """A time in which the smoothed score reaches the threshold."""

    start: float
    """Seconds."""
    end: float
    """Seconds; that of its last frame."""
    best: TimedFrame
    """The frame of the highest score."""


def smooth(frames: Iterable[TimedFrame], seconds: float) -> Iterator[TimedFrame]:
    """Average scores over time, over as much before a frame as after it.

    Frames that were left out count for nothing, and stay without a score.

    Args:
        frames: Frames in the order of time.
        seconds: Length of the window; 0 leaves scores as they are. Half of it is held in memory.
    """
    window: deque[TimedFrame] = deque()
    waiting: deque[TimedFrame] = deque()

    def ready() -> TimedFrame:
        frame = waiting.popleft()
        while frame.second - window[0].second > seconds / 2:
            window.popleft()
        near = [x.prediction.score for x in window if x.prediction and abs(x.second - frame.second) <= seconds / 2]
        return frame if frame.prediction is None else frame._replace(smoothed=float(np.mean(near)))

    for frame in frames:
        window.append(frame)
        waiting.append(frame)
        while waiting and frame.second - waiting[0].second > seconds / 2:
            yield ready()
    while waiting:
        yield ready()


class EventFinder:
    """Finds events while frames come in.

    Args:
        threshold: Score from which a frame is abnormal.
        gap: Longest time without an abnormal frame inside an event, in seconds.
        shortest: Shortest event, in seconds.
    """

    def __init__(self, threshold: float, gap: float, shortest: float) -> None:
        self.threshold, self.gap, self.shortest = threshold, gap, shortest
        self._open: Event | None = None

    def add(self, frame: TimedFrame) -> Event | None:
        """Take in the next frame.

        Returns:
            An event that has ended, if one has.
        """
        ended = None
        if self._open is not None and frame.second - self._open.end > self.gap + 1e-9:
            ended = self.finish()
        if frame.smoothed >= self.threshold:
            if self._open is None:
                self._open = Event(frame.second, frame.second, frame)
            best = frame if frame.smoothed > self._open.best.smoothed else self._open.best
            self._open = replace(self._open, end=frame.second, best=best)
        return ended

    def finish(self) -> Event | None:
        """End the event that is going on, if there is one and it is long enough."""
        event, self._open = self._open, None
        return event if event is not None and event.end - event.start >= self.shortest - 1e-9 else None
