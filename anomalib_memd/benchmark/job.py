"""One job of a benchmark: train one method on one data set with one seed, and test it."""

import contextlib
import json
import logging
import math
import shutil
import time
import traceback
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from anomalib.pipelines.components import Job
from lightning import seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from anomalib_memd.evaluation.post_processor import MultimodalPostProcessor
from anomalib_memd.files import workspace, written_whole
from anomalib_memd.modality import Branch
from anomalib_memd.version import __version__

from .build import build_datamodule, build_model, restore, tested_datamodule
from .cost import PeakMemory, measure_cost
from .feature_store import FeatureStore, shared_features
from .limits import limit_in_batches, limit_in_time
from .process import run_apart
from .recorder import ScoreRecorder
from .splits import DEV, TEST, VAL
from .task import Task
from .training_end import TrainingEnd, hold_back

logger = logging.getLogger(__name__)

FINISHED, FAILED = "finished", "failed"


class BenchmarkJob(Job):
    """Train and test one method in a process of its own, unless its results are there already.

    The folder of the results appears at the end, whole: ``scores.csv`` with one row an image, ``result.json``
    with all else, ``pictures.npz`` with a few images and heat maps, ``log.csv`` with losses, ``model.ckpt``, and for
    MEMD ``encodings.npz``. A job that opens ``test`` later tests that model, and does not train again. Models
    that did not learn from pairs are deleted then.

    Args:
        task: What to do.
    """

    name = "benchmark"

    def __init__(self, task: Task) -> None:
        self.task = task

    def run(self, task_id: int | None = None) -> dict[str, Any]:
        """Do it.

        Args:
            task_id: Number of the GPU, where several jobs run at a time.

        Returns:
            Name, data set, modality, seed, status and, of a failure, its error.
        """
        task = self.task
        if self.is_finished():
            return self.outcome()
        self._note.unlink(missing_ok=True)
        print(f"{task.dataset}: {task.method.name}, {task.modality}, seed {task.seed} ...", flush=True)  # noqa: T201
        task.output.mkdir(parents=True, exist_ok=True)
        with workspace(task.output, ".job-") as folder:
            try:
                error, trace = run_apart(self._attempt, folder, task_id)
            except BrokenProcessPool:
                error = trace = "Its process was killed; systems do so where memory runs out."
        if error:
            with written_whole(self._note) as temporary:
                temporary.write_text(f"{' '.join(error.split())}\n\n{trace}", encoding="utf-8")
        return self.outcome()

    def outcome(self) -> dict[str, Any]:
        """What became of the job, as :meth:`run` returns it, by what it has left in the folder."""
        task = self.task
        row = {"method": task.method.name, "dataset": task.dataset, "modality": task.modality, "seed": task.seed}
        if self.is_finished():
            return row | {"status": FINISHED, "error": ""}
        lost = "Its machine was lost, each time that it was tried."
        error = self._note.read_text(encoding="utf-8").partition("\n")[0] if self._note.exists() else lost
        return row | {"status": FAILED, "error": error}

    @property
    def _note(self) -> Path:
        """Where the error of a failed job stands, and below it where it was raised."""
        return self.task.folder.with_suffix(".error.txt")

    def _attempt(self, temporary: Path, task_id: int | None) -> tuple[str, str]:
        """Error and traceback, both empty if there was none."""
        folder = self.task.folder
        try:
            self._run(temporary, task_id)
        except Exception as error:
            logger.exception("%s failed.", folder)
            return f"{type(error).__name__}: {error}", traceback.format_exc()
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.replace(temporary / "before")  # It is whole or gone, whenever the process is killed.
        (temporary / "results").replace(folder)
        return "", ""

    def is_finished(self) -> bool:
        """Whether its results are there, its cost among them if that is asked for.

        Figures of ``test`` outlive a missing cost: where their model is gone, the cost stays unknown.
        """
        facts = self._earlier()
        if not facts or not set(self.task.splits) <= set(facts.get("splits", [])):
            return False
        knows_cost = bool(facts["cost"]) or not self.task.latency
        return knows_cost or (TEST in facts["splits"] and not self._keeps_model(facts))

    def _earlier(self) -> dict[str, Any]:
        """What an earlier run of the same job found; empty if there is none."""
        file = self.task.folder / "result.json"
        facts = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return facts if facts.get("digest") == self.task.digest else {}

    def _keeps_model(self, facts: dict[str, Any]) -> bool:
        """Whether the model of an earlier run is there, and of the same software."""
        return facts.get("versions") == _versions() and (self.task.folder / "model.ckpt").exists()

    @property
    def opens_test(self) -> bool:
        """Whether it is going to look at test images."""
        return TEST in self.task.splits and TEST not in self._earlier().get("splits", [])

    def _run(self, temporary: Path, task_id: int | None) -> None:
        task = self.task
        results = temporary / "results"
        seed_everything(task.seed, verbose=False)
        model = build_model(task)
        common: dict[str, Any] = {
            "default_root_dir": temporary / "engine",
            "accelerator": "gpu" if task.accelerator == "cuda" else task.accelerator,
            "devices": 1 if task_id is None or task.accelerator == "cpu" else [task_id],
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        facts = self._earlier()
        if self._keeps_model(facts):
            # It only has to be tested on more images, or to have its cost measured.
            shutil.copytree(task.folder, results)
            restore(model, results / "model.ckpt")
        else:
            results.mkdir()
            facts = self._train(model, common, temporary, results)
        with shared_features(FeatureStore(task.output / "features")):
            self._test(model, common, results, facts)
        if task.latency and not facts["cost"]:
            facts["cost"] = measure_cost(model, temporary)
        facts["finished"] = time.strftime("%Y-%m-%d %H:%M:%S")
        (results / "result.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        if TEST in facts["splits"] and not task.method.paired:
            (results / "model.ckpt").unlink()

    def _train(self, model: AnomalibModule, common: dict, temporary: Path, results: Path) -> dict[str, Any]:
        """Train it, and write ``model.ckpt`` and ``log.csv``; returns what is known so far."""
        task, method = self.task, self.task.method
        seconds, ends = limit_in_time(task), limit_in_batches(task)
        datamodule = build_datamodule(task, task.dataset)
        end = TrainingEnd(hold_back(datamodule) if method.learns else None, seconds, ends)
        engine = Engine(
            callbacks=[end],
            logger=CSVLogger(temporary, name="log", version=""),
            precision=method.precision,
            **common,
            # Of what learns, labels choose nothing.
            **({"limit_val_batches": 0} if method.learns else {}),
            **({} if method.max_epochs is None else {"max_epochs": method.max_epochs}),
        )
        # MEMD keeps what it trains on by itself. What it finds elsewhere must not depend on what others have kept.
        with shared_features(None if method.paired else FeatureStore(task.output / "features")):
            started = time.monotonic()
            with PeakMemory() as memory:
                engine.fit(model=model, datamodule=datamodule)
            training_seconds = time.monotonic() - started
        engine.trainer.save_checkpoint(results / "model.ckpt", weights_only=True)
        log = temporary / "log" / "metrics.csv"
        if log.exists():
            log.rename(results / "log.csv")
        return {
            "digest": task.digest,
            "order": method.order,
            "method": method.name,
            "group": method.group,
            "dataset": task.dataset,
            "modality": task.modality,
            "seed": task.seed,
            "splits": [],
            "epochs": engine.trainer.current_epoch,
            "batches": end.ends,
            "ended_by": end.reasons,
            "held_back_loss": end.losses,
            "training_seconds": training_seconds,
            "max_time": seconds,
            "precision": method.precision,
            "peak_memory_bytes": memory.peak,
            "pixel_metrics": {},
            "thresholds": _thresholds(model, task.modality),
            "cost": {},
            "versions": _versions(),
        }

    def _test(self, model: AnomalibModule, common: dict, results: Path, facts: dict[str, Any]) -> None:
        """Test on what it was not tested on before, and add to the results.

        Args:
            model: Has been trained.
            common: What the trainer that tests has in common with the one that has trained it.
            results: Folder of the results.
            facts: What is known; splits and pixel metrics are added.
        """
        task = self.task
        shown = TEST if TEST in task.splits else VAL
        untested = [split for split in task.splits if split not in facts["splits"]]
        metrics, model.evaluator.test_metrics = model.evaluator.test_metrics, nn.ModuleList()
        scores = [pd.read_csv(results / "scores.csv")] if facts["splits"] else []
        for split in untested:
            for dataset, data in task.datasets.items():
                if split == DEV and "development" not in data:
                    continue
                datamodule = tested_datamodule(task, dataset, split)
                recorder = ScoreRecorder(task.modality)
                engine = Engine(callbacks=[recorder], logger=False, **common)
                engine.test(model=model, datamodule=datamodule, verbose=False)
                scores.append(recorder.scores().assign(tested_on=dataset, split=split))
                facts["pixel_metrics"].setdefault(dataset, {})[split] = recorder.pixel_metrics()
                if (dataset, split) == (task.dataset, shown):
                    np.savez_compressed(results / "pictures.npz", **recorder.pictures)
                    np.savez_compressed(results / "encodings.npz", **recorder.encodings())
        model.evaluator.test_metrics = metrics
        pd.concat(scores).to_csv(results / "scores.csv", index=False)
        facts["splits"] += untested

    @staticmethod
    def collect(results: list[dict[str, Any]]) -> pd.DataFrame:
        """One row a job."""
        return pd.DataFrame(results, columns=["dataset", "method", "modality", "seed", "status", "error"])

    @staticmethod
    def save(results: pd.DataFrame) -> None:
        """Do nothing: each job has left on the disk what it found."""


def _versions() -> dict[str, str]:
    """Versions of the software that results depend on."""
    found = {"anomalib-memd": __version__}
    for package in ("anomalib", "torch", "timm", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _thresholds(model: AnomalibModule, modality: str) -> dict[str, float]:
    """Threshold of the raw score of each detector, as calibrated on the validation images."""
    processor: Any = model.post_processor
    if isinstance(processor, MultimodalPostProcessor):
        processors = {branch.value: processor.branch(branch) for branch in Branch}
    else:
        processors = {modality: processor}
    thresholds = {name: float(p._image_threshold) for name, p in processors.items()}  # noqa: SLF001  the public one is normalised
    return {name: value for name, value in thresholds.items() if not math.isnan(value)}
