"""What the page shows: frames that were judged, as pictures, labels, counts and a table."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from anomalib_memd.deployment.stream import FramePrediction
from anomalib_memd.modality import Modality

from .judge import Judge
from .judged import Judged, judge_frames
from .regions import draw_prediction, find_boxes, label_of, save_picture
from .sources import Frame, read_frames
from .video_file import VIDEO_SUFFIXES, VideoError, number_of_frames, read_video

LARGEST = 640
"""Longest side of the pictures that are kept, in pixels."""
CLIP_FRAMES = 100
"""Number of frames of a clip that are judged, evenly spread."""


class Finding(NamedTuple):
    """A frame, and what each model made of it."""

    name: str
    image: np.ndarray | None
    """At most ``LARGEST`` pixels a side; ``None`` where the file could not be read."""
    modality: Modality | None
    recognised: Modality | None
    predictions: tuple[FramePrediction, ...]
    """One of each model."""
    error: str = ""


@dataclass(frozen=True)
class Review:
    """Frames that were judged by one model or several.

    Args:
        findings: One for each frame.
        folder: Where pictures and tables are written; each picture is drawn once. Pictures have its name in theirs.
    """

    findings: Sequence[Finding]
    folder: Path

    @classmethod
    def of_files(
        cls, paths: Sequence[str | Path], judges: Sequence[Judge], modality: Modality | None, folder: Path
    ) -> "Review":
        """Judge images and clips; of a file that cannot be read there is a finding with its error.

        Args:
            paths: Files.
            judges: Models.
            modality: Of all frames; recognised for each if ``None``.
            folder: See the class.
        """
        frames = [frame for path in paths for frame in _frames(Path(path))]
        by_model = [list(judge_frames(judge, iter(frames), modality)) for judge in judges]
        return cls([_finding(judged) for judged in zip(*by_model, strict=True)], folder)

    def order(self, model: int) -> list[int]:
        """Numbers of the findings by the score of a model, the highest first; errors come last."""
        scored = [n for n, finding in enumerate(self.findings) if finding.predictions]
        by_score = sorted(scored, key=lambda n: -self.findings[n].predictions[model].score)
        return by_score + [n for n, finding in enumerate(self.findings) if not finding.predictions]

    def count(self, model: int, threshold: float) -> str:
        """How many frames have which label, as a sentence."""
        labels = [label_of(found.predictions[model].score, threshold) for found in self.findings if found.predictions]
        errors = sum(bool(found.error) for found in self.findings)
        text = f"**{labels.count('abnormal')} abnormal, {labels.count('normal')} normal**"
        return text + (f", {errors} could not be read" if errors else "")

    def problems(self) -> str:
        """What could not be read, and what looks like the other modality, a line each."""
        lines = [f"- {found.error}" for found in self.findings if found.error]
        lines += [
            f"- {found.name} looks like {found.recognised.upper()}, but was judged as {found.modality.upper()}."
            for found in self.findings
            if found.recognised is not None and found.recognised is not found.modality
        ]
        return "\n".join(lines)

    def gallery(self, model: int, threshold: float, opacity: float) -> list[tuple[str, str]]:
        """Files of the pictures with their captions, sorted by score.

        Args:
            model: Number of the model.
            threshold: Score from which a frame is abnormal.
            opacity: Of the heat map.
        """
        shown = []
        for number in self.order(model):
            finding = self.findings[number]
            if finding.image is None:
                continue
            prediction = finding.predictions[model]
            path = self.folder / f"{self.folder.name}-{number}-{model}-{opacity:.2f}.jpg"
            if not path.exists():
                save_picture(draw_prediction(finding.image, prediction, opacity), path)
            label = label_of(prediction.score, threshold)
            text = f"{label} {prediction.score:.2f} {finding.modality.upper()} {finding.name}"
            shown.append((str(path), text))
        return shown

    def tabulate(self, thresholds: Sequence[float]) -> pd.DataFrame:
        """A line a frame: file, modality, and score, label, threshold and boxes by each model.

        Args:
            thresholds: Score from which a frame is abnormal, for each model; columns of several have their number.
        """
        rows = []
        for number in self.order(0):
            finding = self.findings[number]
            row: dict[str, Any] = {"file": finding.name, "modality": finding.modality.value if finding.modality else ""}
            for model, (threshold, found) in enumerate(zip(thresholds, finding.predictions, strict=False), 1):
                end = "" if len(thresholds) == 1 else f" {model}"
                boxes = [list(box) for box in find_boxes(found.mask, finding.image.shape[:2])]
                row |= {
                    f"score{end}": round(found.score, 4),
                    f"label{end}": label_of(found.score, threshold),
                    f"threshold{end}": round(threshold, 4),
                    f"boxes{end}": str(boxes),
                }
            rows.append(row | {"error": finding.error})
        return pd.DataFrame(rows)

    def write_table(self, thresholds: Sequence[float]) -> str:
        """Write the table as CSV; returns its file."""
        path = self.folder / "scores.csv"
        self.tabulate(thresholds).to_csv(path, index=False)
        return str(path)

    def pack(self, thresholds: Sequence[float], opacity: float) -> str:
        """Write all pictures into a ZIP archive, a folder a model; returns its file."""
        path = self.folder / f"{self.folder.name}-pictures.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for model, threshold in enumerate(thresholds):
                for number, (picture, caption) in enumerate(self.gallery(model, threshold, opacity)):
                    archive.write(picture, f"model {model + 1}/{number:04d} {caption}.jpg")
        return str(path)


def _finding(judged: Sequence[Judged]) -> Finding:
    """What all models made of one frame."""
    first = judged[0]
    path = Path(first.frame.name)
    if first.prediction is None:
        return Finding(path.name, None, None, None, (), first.frame.error.replace(f"{path.parent}/", ""))
    predictions = tuple(each.prediction for each in judged if each.prediction is not None)
    return Finding(path.name, first.frame.image, first.modality, first.recognised, predictions)


def _frames(path: Path) -> Iterator[Frame]:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return (_small(frame) for frame in read_frames([path]))
    return _clip_frames(path)


def _clip_frames(path: Path) -> Iterator[Frame]:
    try:
        number = number_of_frames(path) or 10 * CLIP_FRAMES
        step = max(1, number // CLIP_FRAMES)
        for second, image in islice(read_video(path), 0, None, step):
            yield _small(Frame(f"{path} at {second:.2f} s", image))
    except VideoError as error:
        yield Frame(str(path), None, str(error))


def _small(frame: Frame) -> Frame:
    if frame.image is None or max(frame.image.shape[:2]) <= LARGEST:
        return frame
    picture = Image.fromarray(frame.image)
    picture.thumbnail((LARGEST, LARGEST))
    return frame._replace(image=np.asarray(picture))
