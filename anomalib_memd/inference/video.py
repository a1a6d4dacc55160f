"""A video, judged frame by frame: events, a timeline, and a copy with heat maps."""

import csv
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from anomalib_memd.files import used_alone, written_whole
from anomalib_memd.modality import Modality
from anomalib_memd.progress import track

from .events import Event, EventFinder, TimedFrame, smooth
from .judge import Judge, Seen, choose_modality, load_judge, require_modality
from .quality import find_defect
from .regions import OPACITY, draw_prediction, find_boxes
from .score import ModalityName, save_picture
from .sources import ahead
from .video_file import LiveFrames, VideoError, VideoWriter, frame_rate, is_live, number_of_frames, read_video

FRAME_COLUMNS = ("frame", "second", "score", "smoothed", "label", "threshold", "left_out", "boxes")


def video(
    model: Path,
    input: str,  # noqa: A002  the name of the option
    output: Path = Path("results/video"),
    modality: ModalityName | None = None,
    smoothing: float = 0.0,
    gap: float = 0.5,
    shortest: float = 0.2,
    annotate: bool = True,
    seconds: float | None = None,
) -> None:
    """Judge a video or a live source: find events, and write tables, a timeline, pictures and an annotated MP4.

    Frames that are dark, blurred, or from outside of the body are left out and counted.

    Args:
        model: Checkpoint of MEMD, or an exported student (.xml, .onnx, .pt, .ts, .pt2).
        input: Video, camera such as /dev/video0, or the address of a stream.
        output: Folder of annotated.mp4, frames.csv, events.csv, timeline.png and the pictures of events.
        modality: wli or nbi; recognised by the colours of the first frame with tissue if not given.
        smoothing: Length of the window over which scores are averaged, in seconds; 0 for none.
        gap: Longest time without an abnormal frame inside an event, in seconds.
        shortest: Shortest event, in seconds.
        annotate: Whether annotated.mp4 is written.
        seconds: How much of the video is judged at most; all of it, or until Ctrl+C, if not given.

    Raises:
        VideoError: If the source holds no video, or PyAV is not installed.
        ValueError: If the model is of no use, or a time is negative.
        RuntimeError: If something else writes to the output.
    """
    if min(smoothing, gap, shortest) < 0 or (seconds is not None and seconds <= 0):
        msg = f"Times are not negative, got smoothing={smoothing}, gap={gap}, shortest={shortest}, seconds={seconds}."
        raise ValueError(msg)
    live = is_live(input)
    rate = frame_rate(input)  # Before the model is loaded and anything is written.
    judge = load_judge(model)
    given = None if modality is None else Modality(modality)
    require_modality(judge, given)
    source = LiveFrames(input) if live else ahead(read_video(input))
    with used_alone(output):
        report = _Report(output, rate if annotate else None)
        started = time.monotonic()
        failures: list[VideoError] = []
        try:
            with_time = _until(source, seconds, failures)
            total = None if live else number_of_frames(input)
            timed = track(judge_video(judge, with_time, given, report), "Judged frames", total)
            finder: EventFinder | None = None
            for frame in smooth(timed, smoothing):
                finder = finder or EventFinder(report.threshold, gap, shortest)
                report.add(frame, finder.add(frame))
            if finder is not None:
                report.add_event(finder.finish())
        except KeyboardInterrupt:
            if not live:
                report.abandon()
                raise
        except BaseException:
            report.abandon()
            raise
        took = time.monotonic() - started
        report.close()
    dropped = f", {source.dropped} dropped to keep up" if isinstance(source, LiveFrames) else ""
    print(report.summary(took) + dropped)  # noqa: T201
    print(f"{len(report.events)} events, see {output / 'events.csv'}")  # noqa: T201
    if failures:
        msg = f"{failures[0]} What came before is in {output}."
        raise VideoError(msg) from failures[0]


def judge_video(
    judge: Judge, frames: Iterable[tuple[float, np.ndarray]], modality: Modality | None, report: "_Report | None" = None
) -> Iterator[TimedFrame]:
    """Judge the frames of a video in their order; those with a defect are left out.

    Args:
        judge: The model.
        frames: Seconds and frames, see :func:`.read_video`.
        modality: Of all frames; that of the first without a defect if ``None``.
        report: Is told the modality and the threshold.
    """
    waiting: list[TimedFrame] = []
    chosen = modality

    def usable() -> Iterator[Seen]:
        nonlocal chosen
        for number, (second, image) in enumerate(frames):
            frame = TimedFrame(number, second, image, find_defect(image), None)
            waiting.append(frame)
            if frame.defect is None:
                if chosen is None:
                    chosen, _ = choose_modality(judge, image, None)
                if report is not None:
                    report.threshold = judge.thresholds[chosen]
                yield Seen(image, chosen)

    for prediction in judge(usable()):
        while waiting[0].defect is not None:
            yield waiting.pop(0)
        yield waiting.pop(0)._replace(prediction=prediction)
    yield from waiting


@dataclass
class _Report:
    """What is written of a video; its files appear once they are complete."""

    folder: Path
    rate: float | None
    """Frames a second of the annotated video; ``None`` for none."""
    threshold: float = float("nan")
    events: list[Event] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    _scores: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._partial = {name: self.folder / f".{name}.part" for name in ("frames.csv", "annotated.mp4")}
        for old in self._partial.values():
            old.unlink(missing_ok=True)
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
            label = "abnormal" if frame.smoothed >= self.threshold else "normal"
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
        folder = self.folder / "events"
        folder.mkdir(exist_ok=True)
        save_picture(annotated(event.best, self.threshold), folder / f"event-{len(self.events):03d}.jpg")

    def close(self) -> None:
        """Complete all files."""
        self._table.close()
        if self._video is not None:
            self._video.close()
        for name, partial in self._partial.items():
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
        for partial in self._partial.values():
            partial.unlink(missing_ok=True)

    def summary(self, took: float) -> str:
        """How much was judged, what was left out, and how fast it was."""
        number, length = len(self._scores), self._scores[-1][0] if self._scores else 0.0
        out = ", ".join(f"{count} {defect}" for defect, count in sorted(self.left_out.items())) or "none"
        speed = f"{number / took:.1f} frames a second, {length / took:.2f} times real time"
        return f"{number} frames of {length:.1f} s, left out: {out}; {speed}"


def annotated(frame: TimedFrame, threshold: float) -> np.ndarray:
    """A frame with its heat map and score, as it is if it was left out."""
    if frame.prediction is None:
        return frame.image
    label = "abnormal" if frame.smoothed >= threshold else "normal"
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


def _until(
    frames: Iterable[tuple[float, np.ndarray]], seconds: float | None, failures: list[VideoError]
) -> Iterator[tuple[float, np.ndarray]]:
    """Frames up to a time, or up to where the source fails; what was judged until then is kept."""
    try:
        for second, image in frames:
            if seconds is not None and second >= seconds:
                return
            yield second, image
    except VideoError as error:
        failures.append(error)
