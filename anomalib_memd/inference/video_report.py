"""What is written of a video: tables, pictures, a timeline, and a copy with heat maps."""

import csv
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from anomalib_memd.files import written_whole

from .events import Event, TimedFrame
from .regions import OPACITY, draw_prediction, find_boxes, label_of, save_picture
from .video_file import VideoWriter

FRAME_COLUMNS = ("frame", "second", "score", "smoothed", "label", "threshold", "left_out", "boxes")


@dataclass
class VideoReport:
    """What is written of a video; its files appear once they are complete."""

    folder: Path
    rate: float | None
    """Frames a second of the annotated video; ``None`` for none."""
    threshold: float = float("nan")
    events: list[Event] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    _scores: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._partial = {name: self.folder / f".{name}.part" for name in ("frames.csv", "annotated.mp4", "events")}
        self._clear()
        self._partial["events"].mkdir()
        self._table = self._partial["frames.csv"].open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._table)
        self._rows.writerow(FRAME_COLUMNS)
        self._video = None if self.rate is None else VideoWriter(self._partial["annotated.mp4"], self.rate)

    def add(self, frame: TimedFrame, event: Event | None) -> None:
        """Take in a frame, and the event that ended before it."""
        self.add_event(event)
        prediction, size = frame.prediction, frame.image.shape[:2]
        self._scores.append((frame.second, frame.smoothed))
        if prediction is None:
            self.left_out[frame.defect] += 1
            self._rows.writerow((frame.number, f"{frame.second:.3f}", "", "", "", "", frame.defect, ""))
        else:
            label = label_of(frame.smoothed, self.threshold)
            boxes = [list(box) for box in find_boxes(prediction.mask, size)]
            values = (f"{value:.6f}" for value in (prediction.score, frame.smoothed))
            row = (frame.number, f"{frame.second:.3f}", *values, label, f"{self.threshold:.6f}", "", boxes)
            self._rows.writerow(row)
        if self._video is not None:
            self._video.write(frame.second, annotated(frame, self.threshold))

    def add_event(self, event: Event | None) -> None:
        """Take in an event, and save its best frame."""
        if event is None:
            return
        self.events.append(event)
        picture = self._partial["events"] / f"event-{len(self.events):03d}.jpg"
        save_picture(annotated(event.best, self.threshold), picture)

    def close(self) -> None:
        """Complete all files."""
        self._table.close()
        if self._video is not None:
            self._video.close()
        for name, partial in self._partial.items():
            _remove(self.folder / name)  # That of an earlier run.
            if partial.exists():
                partial.replace(self.folder / name)
        rows = [
            {
                "event": number,
                "start": round(event.start, 3),
                "end": round(event.end, 3),
                "best_frame": event.best.number,
                "best_second": round(event.best.second, 3),
                "score": round(event.best.smoothed, 6),
                "picture": f"events/event-{number:03d}.jpg",
            }
            for number, event in enumerate(self.events, 1)
        ]
        columns = ["event", "start", "end", "best_frame", "best_second", "score", "picture"]
        with written_whole(self.folder / "events.csv") as temporary:
            pd.DataFrame(rows, columns=columns).to_csv(temporary, index=False)
        with written_whole(self.folder / "timeline.png") as temporary:
            draw_timeline(self._scores, self.threshold, self.events, temporary)

    def abandon(self) -> None:
        """Leave no half of a file."""
        self._table.close()
        if self._video is not None:
            self._video.close()
        self._clear()

    def _clear(self) -> None:
        for partial in self._partial.values():
            _remove(partial)

    def summary(self, took: float) -> str:
        """How much was judged, what was left out, and how fast it was."""
        number, length = len(self._scores), self._scores[-1][0] if self._scores else 0.0
        out = ", ".join(f"{count} {defect}" for defect, count in sorted(self.left_out.items())) or "none"
        speed = f"{number / took:.1f} frames a second, {length / took:.2f} times real time"
        return f"{number} frames of {length:.1f} s, left out: {out}; {speed}"


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def annotated(frame: TimedFrame, threshold: float) -> np.ndarray:
    """A frame with its heat map and score, as it is if it was left out."""
    if frame.prediction is None:
        return frame.image
    label = label_of(frame.smoothed, threshold)
    opacity = OPACITY if label == "abnormal" else 0.0
    shown = frame.prediction if opacity else frame.prediction._replace(mask=np.zeros_like(frame.prediction.mask))
    return draw_prediction(frame.image, shown, opacity, f"{frame.second:.2f} s  {label}  {frame.smoothed:.2f}")


def draw_timeline(scores: list[tuple[float, float]], threshold: float, events: list[Event], path: Path) -> None:
    """Draw scores over time, the threshold, events, and what was left out.

    Args:
        scores: Seconds and smoothed scores; not a number where a frame was left out.
        threshold: Score from which a frame is abnormal.
        events: Events.
        path: The picture, PNG.
    """
    values = np.array(scores).reshape(-1, 2)
    figure, axes = plt.subplots(figsize=(10, 3), layout="constrained")
    axes.plot(values[:, 0], values[:, 1], linewidth=1, color="tab:blue", label="score")
    axes.axhline(threshold, linestyle="--", linewidth=1, color="black", label="threshold")
    out = np.isnan(values[:, 1])
    axes.plot(values[out, 0], np.zeros(out.sum()), "|", color="grey", label="left out")
    for number, event in enumerate(events):
        axes.axvspan(event.start, event.end, color="tab:red", alpha=0.25, label="event" if not number else None)
    axes.set(xlabel="Time in s", ylabel="Score", ylim=(-0.02, 1.02))
    axes.legend(loc="upper right", ncols=4, fontsize="small")
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)
