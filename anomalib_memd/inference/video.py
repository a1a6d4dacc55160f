"""A video, judged frame by frame: events, a timeline, and a copy with heat maps."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from anomalib_memd.files import used_alone
from anomalib_memd.modality import Modality
from anomalib_memd.progress import track

from .events import EventFinder, TimedFrame, smooth
from .judge import Judge, ModalityName, Seen, choose_modality, load_judge, require_modality
from .quality import find_defect
from .sources import ahead
from .video_file import LiveFrames, VideoError, frame_rate, is_live, number_of_frames, read_video
from .video_report import VideoReport


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
    given = require_modality(judge, modality)
    source = LiveFrames(input) if live else ahead(read_video(input))
    with used_alone(output):
        report = VideoReport(output, rate if annotate else None)
        started = time.monotonic()
        failures: list[VideoError] = []
        finder: EventFinder | None = None
        try:
            with_time = _until(source, seconds, failures)
            total = None if live else number_of_frames(input)
            timed = track(judge_video(judge, with_time, given, report), "Judged frames", total)
            for frame in smooth(timed, smoothing):
                finder = finder or EventFinder(report.threshold, gap, shortest)
                report.add(frame, finder.add(frame))
        except KeyboardInterrupt:
            if not live:
                report.abandon()
                raise
        except BaseException:
            report.abandon()
            raise
        took = time.monotonic() - started
        if finder is not None:
            report.add_event(finder.finish())
        report.close()
    dropped = f", {source.dropped} dropped to keep up" if isinstance(source, LiveFrames) else ""
    print(report.summary(took) + dropped)  # noqa: T201
    print(f"{len(report.events)} events, see {output / 'events.csv'}")  # noqa: T201
    if failures:
        msg = f"{failures[0]} What came before is in {output}."
        raise VideoError(msg) from failures[0]


def judge_video(
    judge: Judge,
    frames: Iterable[tuple[float, np.ndarray]],
    modality: Modality | None,
    report: VideoReport | None = None,
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
