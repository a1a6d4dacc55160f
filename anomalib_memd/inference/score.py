"""Scores of files, folders and videos."""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from anomalib_memd.deployment.stream import FramePrediction
from anomalib_memd.files import file_digest, used_alone
from anomalib_memd.modality import Modality
from anomalib_memd.progress import track

from .judge import Judge, ModalityName, Seen, choose_modality, load_judge, require_modality
from .regions import draw_prediction, save_picture
from .score_table import ScoreTable, require_parquet, to_parquet
from .sources import Frame, ahead, find_files, read_frames

Overlays = Literal["none", "abnormal", "all"]
TableFormat = Literal["csv", "parquet"]


class Judged(NamedTuple):
    """A frame, by what it was judged, and how."""

    frame: Frame
    modality: Modality
    recognised: Modality | None
    """The modality by its colours, if that is plain."""
    prediction: FramePrediction | None
    """``None`` where the frame could not be read."""


def judge_frames(judge: Judge, frames: Iterator[Frame], modality: Modality | None) -> Iterator[Judged]:
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


def score(
    model: Path,
    input: str,  # noqa: A002  the name of the option
    output: Path = Path("results/scores"),
    modality: ModalityName | None = None,
    table: TableFormat = "csv",
    overlays: Overlays = "none",
    overlay_limit: int = 100,
) -> None:
    """Score a file, a folder of any depth, a video, or all files that a pattern matches.

    Each frame gets a line: score, label and threshold, the modality, boxes around the regions above the threshold of
    the map, and an error if it cannot be read. The same command again goes on where it was cut off.

    Args:
        model: Checkpoint of MEMD, or an exported student (.xml, .onnx, .pt, .ts, .pt2).
        input: File, folder, video, or pattern in quotes, such as 'frames/**/*.png'.
        output: Folder of scores.csv and the pictures.
        modality: wli or nbi; recognised by the colours of each frame if not given.
        table: csv, or parquet, which is written beside it in the end.
        overlays: Of which frames a picture with heat map and boxes is saved: none, abnormal, or all.
        overlay_limit: Number of pictures at most, so that the disk does not fill.

    Raises:
        FileNotFoundError: If there is no model, or nothing to score.
        ValueError: If the model is of no use, or the output is that of another model.
        RuntimeError: If something else writes to the output, or not one frame could be read.
    """
    if table == "parquet":
        require_parquet()
    files = find_files(input)
    first = next(files)  # Before anything is written.
    judge = load_judge(model)
    given = require_modality(judge, modality)
    facts = {"model": file_digest(judge.path), "modality": modality}
    with used_alone(output):
        scores = ScoreTable(output, facts)
        if scores.done:
            print(f"{len(scores.done)} frames are in {scores.path} from an earlier run.")  # noqa: T201
        pictures = _Pictures(output / "overlays", overlays, overlay_limit)
        strange = 0
        try:
            frames = ahead(read_frames(chain([first], files), scores.done.__contains__))
            for judged in track(judge_frames(judge, frames, given), "Scored frames"):
                frame = judged.frame
                if judged.prediction is None:
                    scores.add_error(frame.name, frame.error)
                    continue
                threshold = judge.thresholds[judged.modality]
                scores.add(frame, judged.prediction, judged.modality, judged.recognised, threshold)
                strange += judged.recognised is judged.modality.other
                pictures.offer(judged)
        finally:
            scores.close()
        counts = scores.counts
        if table == "parquet":
            print(f"The same as Parquet: {to_parquet(scores.path)}")  # noqa: T201
    print(f"{counts['abnormal']} abnormal, {counts['normal']} normal, {counts['error']} errors: {scores.path}")  # noqa: T201
    if pictures.saved:
        print(f"{pictures.saved} pictures: {pictures.folder}")  # noqa: T201
    if strange:
        print(f"{strange} frames look like the other modality by their colours; see the column 'recognised'.")  # noqa: T201
    if not counts["abnormal"] + counts["normal"]:
        msg = f"None of {counts['error']} files could be read, see {scores.path}."
        raise RuntimeError(msg)


class _Pictures:
    def __init__(self, folder: Path, wanted: Overlays, limit: int) -> None:
        self.folder, self.wanted, self.limit = folder, wanted, limit
        self.saved = len(list(folder.glob("*.jpg"))) if folder.is_dir() else 0

    def offer(self, judged: Judged) -> None:
        """Save a picture, if it is wanted and there is room for it."""
        prediction, image = judged.prediction, judged.frame.image
        wanted = self.wanted == "all" or (self.wanted == "abnormal" and prediction.label)
        if not wanted or self.saved >= self.limit:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file, _, number = judged.frame.name.partition("#")
        name = Path(file).stem + (f" {number}" if number else "")
        save_picture(draw_prediction(image, prediction), self.folder / f"{self.saved:06d} {name}.jpg")
        self.saved += 1
