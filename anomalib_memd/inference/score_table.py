"""The table of scores: written line by line, and gone on with after a run that was cut off."""

import csv
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from anomalib_memd.deployment.stream import FramePrediction
from anomalib_memd.files import written_whole
from anomalib_memd.modality import Modality

from .regions import find_boxes
from .sources import Frame


class ScoreRow(NamedTuple):
    """A line of the table, as text."""

    path: str
    """Name of the frame, see :class:`.Frame`."""
    modality: str = ""
    """By whose student it was judged."""
    recognised: str = ""
    """The modality by its colours, if that is plain."""
    score: str = ""
    label: str = ""
    """``normal`` or ``abnormal``; nothing where the frame could not be judged."""
    threshold: str = ""
    boxes: str = ""
    """Of the regions above the threshold of the map, as JSON."""
    error: str = ""

    @classmethod
    def of(
        cls,
        frame: Frame,
        prediction: FramePrediction | None,
        modality: Modality,
        recognised: Modality | None,
        threshold: float,
    ) -> "ScoreRow":
        """What was made of a frame, or why nothing was."""
        if prediction is None or frame.image is None:
            return cls(frame.name, error=" ".join(frame.error.split()))
        return cls(
            frame.name,
            modality.value,
            "" if recognised is None else recognised.value,
            f"{prediction.score:.6f}",
            "abnormal" if prediction.label else "normal",
            f"{threshold:.6f}",
            json.dumps(find_boxes(prediction.mask, frame.image.shape[:2])),
        )


COLUMNS = ScoreRow._fields


class ScoreTable:
    """``scores.csv``: a line a frame, which is on the disk as soon as it is there.

    Where a run was cut off, its table is gone on with; a line that was not finished is written anew.

    Args:
        folder: Folder of the table.
        facts: What the scores depend on; a table that depends on something else is not gone on with.

    Raises:
        ValueError: If the folder has the scores of another model or modality.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.path = folder / "scores.csv"
        self.done: set[str] = set()
        """Names that are in the table from an earlier run."""
        self.counts = {"normal": 0, "abnormal": 0, "error": 0}
        """Number of lines of each kind."""
        note = folder / "run.json"
        if note.exists():
            before = _facts(note)
            changed = [name for name, value in facts.items() if before.get(name) != value]
            if changed:
                msg = f"{folder} holds scores with another {', '.join(changed)}; give another --output."
                raise ValueError(msg)
            self._take_over()
        else:
            if self.path.exists():
                msg = f"{self.path} is there, and is not of this command; give another --output."
                raise ValueError(msg)
            with written_whole(note) as temporary:
                temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        is_new = not self.path.exists()
        self._file = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        if is_new:
            self._writer.writerow(COLUMNS)

    def _take_over(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            while end and (file.seek(end - 1), file.read(1))[1] != b"\n":
                end -= 1
            file.truncate(end)
        if not end:
            self.path.unlink()
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                msg = f"{self.path} has other columns than this command writes; give another --output."
                raise ValueError(msg)
            for row in reader:
                self.done.add(row["path"])
                self.counts[row["label"] or "error"] += 1

    def add(self, row: ScoreRow) -> None:
        """Add a line."""
        self._writer.writerow(row)
        self._file.flush()
        self.counts[row.label or "error"] += 1

    def close(self) -> None:
        """End the table."""
        self._file.close()


def _facts(note: Path) -> dict[str, Any]:
    try:
        facts = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        msg = f"{note} is not of this command, or damaged; give another --output."
        raise ValueError(msg)  # noqa: TRY004  what is wrong is the file
    return facts


def to_parquet(table: Path) -> Path:
    """Write a table of scores as Parquet beside it, part by part.

    Args:
        table: ``scores.csv``.

    Returns:
        ``scores.parquet``.

    Raises:
        RuntimeError: If pyarrow is not installed.
    """
    require_parquet()
    import pyarrow as pa  # noqa: PLC0415  an extra
    from pyarrow import parquet  # noqa: PLC0415

    numbers, words = ("score", "threshold"), [name for name in COLUMNS if name not in {"score", "threshold"}]
    schema = pa.schema([(name, pa.float64() if name in numbers else pa.string()) for name in COLUMNS])
    target = table.with_suffix(".parquet")
    with written_whole(target) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        types, empty = dict.fromkeys(words, str), {name: [""] for name in numbers}
        for part in pd.read_csv(table, dtype=types, keep_default_na=False, na_values=empty, chunksize=10_000):
            writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))
    return target


def require_parquet() -> None:
    """Raise what to do if Parquet cannot be written.

    Raises:
        RuntimeError: If pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        msg = "Parquet needs pyarrow; run: pip install 'anomalib-memd[parquet]'."
        raise RuntimeError(msg)
