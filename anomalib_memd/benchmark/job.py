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
import torch
from anomalib.data import AnomalibDataModule, get_datamodule
from anomalib.engine import Engine
from anomalib.metrics import Evaluator
from anomalib.models import AnomalibModule, get_model
from anomalib.models.components import TimmFeatureExtractor
from anomalib.pipelines.components import Job
from lightning import seed_everything
from lightning.pytorch.cli import instantiate_class
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.evaluation.post_processor import MultimodalPostProcessor
from anomalib_memd.files import workspace, written_whole
from anomalib_memd.modality import Branch
from anomalib_memd.models.trained import TrainedMixin
from anomalib_memd.version import __version__

from .cost import PeakMemory, measure_cost
from .feature_store import FeatureStore, shared_features
from .limits import limit_in_batches, limit_in_time
from .process import run_apart
from .recorder import ScoreRecorder
from .splits import DEV, TEST, VAL
from .task import Task, run_folder
from .training_end import TrainingEnd, hold_back

logger = logging.getLogger(__name__)

FINISHED, FAILED = "finished", "failed"


class BenchmarkJob(Job):
    """Train and test one method in a process of its own, unless its results are there already.

    The folder of the results appears at the end, whole: ``scores.csv`` with one row an image, ``result.json``
    with all else, ``pictures.npz`` with a few images and heat maps, ``log.csv`` with losses, and for MEMD
    ``encodings.npz`` and ``model.ckpt``.

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
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        (temporary / "results").replace(folder)
        return "", ""

    def is_finished(self) -> bool:
        """Whether its results are there."""
        path = self.task.folder / "result.json"
        if not path.exists():
            return False
        facts = json.loads(path.read_text(encoding="utf-8"))
        tested = set(self.task.splits) <= set(facts.get("splits", []))
        return facts["digest"] == self.task.digest and tested and bool(facts["cost"] or not self.task.latency)

    @property
    def opens_test(self) -> bool:
        """Whether it is going to look at test images."""
        return TEST in self.task.splits and not self.is_finished()

    def _run(self, temporary: Path, task_id: int | None) -> None:
        task, method = self.task, self.task.method
        results = temporary / "results"
        results.mkdir()
        seed_everything(task.seed, verbose=False)
        seconds, ends = limit_in_time(task), limit_in_batches(task)
        model, datamodule = self._model(), self._datamodule(task.dataset)
        metrics, model.evaluator.test_metrics = model.evaluator.test_metrics, nn.ModuleList()
        end = TrainingEnd(hold_back(datamodule) if method.learns else None, seconds, ends)
        common: dict[str, Any] = {
            "default_root_dir": temporary / "engine",
            "accelerator": "gpu" if task.accelerator == "cuda" else task.accelerator,
            "devices": 1 if task_id is None or task.accelerator == "cpu" else [task_id],
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        engine = Engine(
            callbacks=[end],
            logger=CSVLogger(temporary, name="log", version=""),
            precision=method.precision,
            **common,
            # Of what learns, labels choose nothing.
            **({"limit_val_batches": 0} if method.learns else {}),
            **({} if method.max_epochs is None else {"max_epochs": method.max_epochs}),
        )
        kept = task.output / "features"
        # MEMD keeps what it trains on by itself. What it finds elsewhere must not depend on what others have kept.
        with shared_features(None if method.paired else FeatureStore(kept)):
            started = time.monotonic()
            with PeakMemory() as memory:
                engine.fit(model=model, datamodule=datamodule)
            training_seconds = time.monotonic() - started
            epochs = engine.trainer.current_epoch
        with shared_features(FeatureStore(kept)):
            scores, pixels, own = self._test(model, common)
        scores.to_csv(results / "scores.csv", index=False)
        np.savez_compressed(results / "pictures.npz", **own.pictures)
        np.savez_compressed(results / "encodings.npz", **own.encodings())
        log = temporary / "log" / "metrics.csv"
        if log.exists():
            log.rename(results / "log.csv")
        if method.paired:
            model.evaluator.test_metrics = metrics
            engine.trainer.save_checkpoint(results / "model.ckpt", weights_only=True)
        facts = {
            "digest": task.digest,
            "order": method.order,
            "method": method.name,
            "group": method.group,
            "dataset": task.dataset,
            "modality": task.modality,
            "seed": task.seed,
            "splits": list(task.splits),
            "epochs": epochs,
            "batches": end.ends,
            "ended_by": end.reasons,
            "held_back_loss": end.losses,
            "training_seconds": training_seconds,
            "max_time": seconds,
            "precision": method.precision,
            "peak_memory_bytes": memory.peak,
            "pixel_metrics": pixels,
            "thresholds": _thresholds(model, task.modality),
            "cost": measure_cost(model, temporary) if task.latency else {},
            "versions": {"anomalib-memd": __version__, **_installed("anomalib", "torch", "timm", "openvino")},
            "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        (results / "result.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")

    def _model(self) -> AnomalibModule:
        method = self.task.method
        arguments = dict(method.init_args)
        training = dict(arguments.get("training", {}))
        if method.teacher_of is not None:
            teacher = run_folder(
                self.task.output, self.task.dataset, method.teacher_of, self.task.modality, self.task.seed
            )
            training["teacher_ckpt"] = str(teacher / "model.ckpt")
        if method.paired and not method.learns:
            training.setdefault("cache_dir", str(self.task.output / "features" / "memd"))
            arguments["training"] = training
        else:
            arguments["evaluator"] = Evaluator()  # Nothing: the recorder measures tests, alike for all.
        model = get_model(method.class_path.rsplit(".", maxsplit=1)[-1], **arguments, visualizer=False)
        if method.weights is not None:
            for module in model.modules():
                if isinstance(module, TimmFeatureExtractor):
                    source = build_backbone(method.weights, module.layers)
                    module.feature_extractor.load_state_dict(source.feature_extractor.state_dict())
        # Convolutions learn faster with their channels last. Some of anomalib's own models do not take that.
        return model.to(memory_format=torch.channels_last) if isinstance(model, TrainedMixin) else model  # type: ignore[call-overload]

    def _datamodule(self, dataset: str, split: str = VAL) -> AnomalibDataModule:
        data = self.task.datasets[dataset]
        arguments = data.get("init_args", {}) | self.task.method.data_args | {"modality": self.task.modality}
        if split == DEV:
            arguments |= data["development"]
        translator = arguments.pop("translator", None)
        datamodule = get_datamodule({"class_path": data["class_path"], "init_args": arguments})
        if translator is not None:  # anomalib's factory takes plain values alone.
            datamodule.translator = instantiate_class((), translator)
        return datamodule

    def _test(self, model: AnomalibModule, common: dict) -> tuple[pd.DataFrame, dict[str, Any], ScoreRecorder]:
        """Test on every data set; returns the scores and pixel metrics of all, and what was kept of the own one.

        Args:
            model: Has been trained.
            common: What the trainer that tests has in common with the one that has trained it.
        """
        recorders: dict[tuple[str, str], ScoreRecorder] = {}
        for dataset, data in self.task.datasets.items():
            for split in self.task.splits:
                if split == DEV and "development" not in data:
                    continue
                datamodule = self._datamodule(dataset, split)
                if split == VAL:
                    datamodule.prepare_data()
                    datamodule.setup(TrainerFn.TESTING)
                    datamodule.test_data = datamodule.val_data
                recorder = recorders[dataset, split] = ScoreRecorder(self.task.modality)
                engine = Engine(callbacks=[recorder], logger=False, **common)
                engine.test(model=model, datamodule=datamodule, verbose=False)
        scores = [r.scores().assign(tested_on=dataset, split=split) for (dataset, split), r in recorders.items()]
        pixels: dict[str, Any] = {}
        for (dataset, split), recorder in recorders.items():
            pixels.setdefault(dataset, {})[split] = recorder.pixel_metrics()
        shown = TEST if TEST in self.task.splits else VAL
        return pd.concat(scores), pixels, recorders[self.task.dataset, shown]

    @staticmethod
    def collect(results: list[dict[str, Any]]) -> pd.DataFrame:
        """One row a job."""
        return pd.DataFrame(results, columns=["dataset", "method", "modality", "seed", "status", "error"])

    @staticmethod
    def save(results: pd.DataFrame) -> None:
        """Do nothing: each job has left on the disk what it found."""


def _installed(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
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
