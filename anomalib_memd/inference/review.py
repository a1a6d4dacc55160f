"""What the page shows: frames that were judged, as pictures, labels, counts and a table."""

import io
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from anomalib_memd.deployment.stream import FramePrediction
from anomalib_memd.modality import Modality

from .judge import Judge
from .regions import draw_prediction, find_boxes
from .score import judge_frames
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


def judge_files(paths: Sequence[str | Path], judges: Sequence[Judge], modality: Modality | None) -> list[Finding]:
    """Judge images and clips by one model or several.

    Args:
        paths: Files.
        judges: Models.
        modality: Of all frames; recognised for each if ``None``.

    Returns:
        A finding for each frame; of a file that cannot be read one with its error.
    """
    frames = [frame for path in paths for frame in _frames(Path(path))]
    by_model = [list(judge_frames(judge, iter(frames), modality)) for judge in judges]
    found = []
    for judged in zip(*by_model, strict=True):
        first = judged[0]
        name = Path(first.frame.name).name
        if first.prediction is None:
            message = first.frame.error.replace(str(Path(first.frame.name).parent) + "/", "")
            found.append(Finding(name, None, None, None, (), message))
            continue
        predictions = tuple(each.prediction for each in judged if each.prediction is not None)
        found.append(Finding(name, first.frame.image, first.modality, first.recognised, predictions))
    return found


def order(findings: Sequence[Finding], model: int) -> list[int]:
    """Numbers of the findings by the score of a model, the highest first; errors come last."""
    scored = [n for n, finding in enumerate(findings) if finding.predictions]
    by_score = sorted(scored, key=lambda n: -findings[n].predictions[model].score)
    return by_score + [n for n, finding in enumerate(findings) if not finding.predictions]


def label_of(prediction: FramePrediction, threshold: float) -> str:
    """Label by a threshold of the user's choice."""
    return "abnormal" if prediction.score >= threshold else "normal"


def gallery(findings: Sequence[Finding], model: int, threshold: float, opacity: float) -> list[tuple[np.ndarray, str]]:
    """Pictures with their captions, sorted by score.

    Args:
        findings: See :func:`judge_files`.
        model: Number of the model.
        threshold: Score from which a frame is abnormal.
        opacity: Of the heat map.
    """
    shown = []
    for finding in (findings[number] for number in order(findings, model)):
        if finding.image is not None:
            prediction = finding.predictions[model]
            text = f"{label_of(prediction, threshold)} {prediction.score:.2f} {finding.modality.upper()} {finding.name}"
            shown.append((draw_prediction(finding.image, prediction, opacity), text))
    return shown


def count(findings: Sequence[Finding], model: int, threshold: float) -> str:
    """How many frames have which label, as a sentence."""
    labels = [label_of(finding.predictions[model], threshold) for finding in findings if finding.predictions]
    errors = sum(bool(finding.error) for finding in findings)
    text = f"**{labels.count('abnormal')} abnormal, {labels.count('normal')} normal**"
    return text + (f", {errors} could not be read" if errors else "")


def problems(findings: Sequence[Finding]) -> str:
    """What could not be read, and what looks like the other modality, a line each."""
    lines = [f"- {finding.error}" for finding in findings if finding.error]
    lines += [
        f"- {finding.name} looks like {finding.recognised.upper()}, but was judged as {finding.modality.upper()}."
        for finding in findings
        if finding.recognised is not None and finding.recognised is not finding.modality
    ]
    return "\n".join(lines)


def tabulate(findings: Sequence[Finding], thresholds: Sequence[float]) -> pd.DataFrame:
    """A line a frame: file, modality, and score, label, threshold and boxes by each model.

    Args:
        findings: See :func:`judge_files`.
        thresholds: Score from which a frame is abnormal, for each model; columns of several have their number.
    """
    rows = []
    for number in order(findings, 0):
        finding = findings[number]
        row: dict[str, Any] = {"file": finding.name, "modality": finding.modality.value if finding.modality else ""}
        for model, (threshold, found) in enumerate(zip(thresholds, finding.predictions, strict=False), 1):
            end = "" if len(thresholds) == 1 else f" {model}"
            boxes = [list(box) for box in find_boxes(found.mask, finding.image.shape[:2])]
            row |= {
                f"score{end}": round(found.score, 4),
                f"label{end}": label_of(found, threshold),
                f"threshold{end}": round(threshold, 4),
                f"boxes{end}": str(boxes),
            }
        rows.append(row | {"error": finding.error})
    return pd.DataFrame(rows)


def pack(findings: Sequence[Finding], thresholds: Sequence[float], opacity: float, path: Path) -> Path:
    """Save all pictures as a ZIP archive, a folder a model.

    Args:
        findings: See :func:`judge_files`.
        thresholds: Score from which a frame is abnormal, for each model.
        opacity: Of the heat maps.
        path: The archive.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for model, threshold in enumerate(thresholds):
            for number, (picture, caption) in enumerate(gallery(findings, model, threshold, opacity)):
                content = io.BytesIO()
                Image.fromarray(picture).save(content, "JPEG", quality=92)
                archive.writestr(f"model {model + 1}/{number:04d} {caption}.jpg", content.getvalue())
    return path


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
