"""Scores of an archive by many machines."""

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_memd.cluster import connect
from anomalib_memd.modality import Modality

from .judge import load_judge
from .judged import score_rows
from .score_table import COLUMNS, ScoreRow
from .sources import read_frames

PART = 100_000
"""Number of files that are handed out at a time, so that an archive of any size fits into memory."""
BATCH = 16
"""Number of files that a worker takes at a time."""


def score_on_cluster(
    model: Path, files: Iterable[str], done: Collection[str], modality: Modality | None, cores: int
) -> Iterator[ScoreRow]:
    """Score files on a Ray cluster, in their order.

    The model is handed out; files must be found by all machines under the same path or address.

    Args:
        model: See :func:`.load_judge`.
        files: Paths or addresses.
        done: Names of frames that are not wanted.
        modality: Of all frames; recognised for each if ``None``.
        cores: Number of cores of a worker.

    Raises:
        RuntimeError: If there is no cluster, or no machine of it is large enough.
    """
    ray = connect()
    workers = int(sum(node["Resources"].get("CPU", 0) // cores for node in ray.nodes() if node["Alive"]))
    if not workers:
        msg = f"A worker takes {cores} cores, and no machine of the cluster has as many; lower --job_cores."
        raise RuntimeError(msg)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    content = {path.name: path.read_bytes() for path in _files_of(model)}
    arguments = (ray.put(content), model.name, ray.put(set(done)), modality, cores, Path.cwd())
    files = iter(files)
    while part := list(islice(files, PART)):
        names = ray.data.from_items([{"name": name} for name in part], override_num_blocks=-(-len(part) // BATCH))
        scored = names.map_batches(
            _Worker, batch_size=BATCH, fn_constructor_args=arguments, num_cpus=cores, concurrency=(1, workers)
        )
        for row in scored.iter_rows():
            yield ScoreRow(**{name: str(row[name]) for name in COLUMNS})


def _files_of(model: Path) -> list[Path]:
    weights = model.with_suffix(".bin")
    return [model, weights] if model.suffix == ".xml" and weights.exists() else [model]


class _Worker:
    """Has a model of its own, and scores files."""

    def __init__(self, content: Any, name: str, done: Any, modality: Modality | None, cores: int, here: Path) -> None:
        import ray  # noqa: PLC0415  an extra

        with suppress(OSError):
            os.chdir(here)  # Paths may be relative to where the command was given.
        with tempfile.TemporaryDirectory(prefix="anomalib-memd-") as folder:
            for file, data in ray.get(content).items():
                (Path(folder) / file).write_bytes(data)
            self.judge = load_judge(Path(folder) / name, cores)
        self.done, self.modality = ray.get(done), modality

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows of a batch of files."""
        frames = read_frames(map(str, batch["name"]), self.done.__contains__)
        rows = list(score_rows(self.judge, frames, self.modality))
        return {name: np.array([getattr(row, name) for row in rows], dtype=object) for name in COLUMNS}
