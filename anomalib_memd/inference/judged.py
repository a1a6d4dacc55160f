"""Frames, judged one after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from anomalib_memd.deployment.stream import FramePrediction
from anomalib_memd.modality import Modality

from .judge import Judge, Seen, choose_modality
from .score_table import ScoreRow
from .sources import Frame


class Judged(NamedTuple):
    """A frame, by what it was judged, and how."""

    frame: Frame
    modality: Modality
    recognised: Modality | None
    """The modality by its colours, if that is plain."""
    prediction: FramePrediction | None
    """``None`` where the frame could not be read."""


def judge_frames(judge: Judge, frames: Iterable[Frame], modality: Modality | None) -> Iterator[Judged]:
    """Judge frames in their order, also those that could not be read.

    Args:
        judge: The model.
        frames: What to judge.
        modality: Of all frames; recognised for each if ``None``.
    """
    waiting: deque[Judged] = deque()

    def readable() -> Iterator[Seen]:
        for frame in frames:
            if frame.image is None:
                waiting.append(Judged(frame, Modality.WLI, None, None))
                continue
            chosen, recognised = choose_modality(judge, frame.image, modality)
            waiting.append(Judged(frame, chosen, recognised, None))
            yield Seen(frame.image, chosen)

    for prediction in judge(readable()):
        while waiting[0].frame.image is None:
            yield waiting.popleft()
        yield waiting.popleft()._replace(prediction=prediction)
    yield from waiting


def score_rows(
    judge: Judge,
    frames: Iterable[Frame],
    modality: Modality | None,
    offer: Callable[[Judged], None] = lambda _: None,
) -> Iterator[ScoreRow]:
    """Judge frames, and make a line of the table of each.

    Args:
        judge: The model.
        frames: What to judge.
        modality: Of all frames; recognised for each if ``None``.
        offer: Is shown each frame that could be judged.
    """
    for judged in judge_frames(judge, frames, modality):
        if judged.prediction is not None:
            offer(judged)
        threshold = judge.thresholds.get(judged.modality, 0.0)
        yield ScoreRow.of(judged.frame, judged.prediction, judged.modality, judged.recognised, threshold)
