"""Scores of files, folders and videos."""

from itertools import chain
from pathlib import Path
from typing import Literal

from anomalib_memd.cluster import RunnerName, require_ray
from anomalib_memd.files import file_digest, used_alone
from anomalib_memd.progress import track

from .judge import ModalityName, load_judge, require_modality
from .judged import Judged, score_rows
from .ray_score import score_on_cluster
from .regions import draw_prediction, save_picture
from .score_table import ScoreTable, require_parquet, to_parquet
from .sources import ahead, find_files, read_frames

Overlays = Literal["none", "abnormal", "all"]
TableFormat = Literal["csv", "parquet"]


def score(
    model: Path,
    input: str,  # noqa: A002  the name of the option
    output: Path = Path("results/scores"),
    modality: ModalityName | None = None,
    table: TableFormat = "csv",
    overlays: Overlays = "none",
    overlay_limit: int = 100,
    runner: RunnerName = "local",
    job_cores: int = 2,
) -> None:
    """Score a file, a folder of any depth, a video, or all files that a pattern matches.

    Each frame gets a line: score, label and threshold, the modality, boxes around the regions above the threshold of
    the map, and an error if it cannot be read. The same command again goes on where it was cut off.

    Args:
        model: Checkpoint of MEMD, or an exported student (.xml, .onnx, .pt, .ts, .pt2).
        input: File, folder, video, or pattern in quotes, such as 'frames/**/*.png'; or an address of these, such as
            s3://bucket/folder.
        output: Folder of scores.csv and the pictures.
        modality: wli or nbi; recognised by the colours of each frame if not given.
        table: csv, or parquet, which is written beside it in the end.
        overlays: Of which frames a picture with heat map and boxes is saved: none, abnormal, or all.
        overlay_limit: Number of pictures at most, so that the disk does not fill.
        runner: Where frames are scored: local, or ray, on the Ray cluster of the environment variable RAY_ADDRESS.
        job_cores: Number of cores of a worker of the cluster.

    Raises:
        FileNotFoundError: If there is no model, or nothing to score.
        ValueError: If the model is of no use, or the output is that of another model.
        RuntimeError: If something else writes to the output, or not one frame could be read.
    """
    if table == "parquet":
        require_parquet()
    if runner == "ray":
        require_ray()
        if overlays != "none":
            msg = "On a cluster no pictures are drawn; leave out --overlays, or --runner ray."
            raise ValueError(msg)
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
        files = chain([first], files)
        if runner == "ray":
            rows = score_on_cluster(judge.path, files, scores.done, given, job_cores)
        else:
            rows = score_rows(judge, ahead(read_frames(files, scores.done.__contains__)), given, pictures.offer)
        strange = 0
        try:
            for row in track(rows, "Scored frames"):
                scores.add(row)
                strange += row.recognised not in {"", row.modality}
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
