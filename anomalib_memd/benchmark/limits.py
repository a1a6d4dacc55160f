"""How long a job trains: some time, as long as another method, or as far as an earlier run came."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Timer

from anomalib_memd.modality import Modality

from .task import Task, run_folder


class TrainingLimit(Timer):
    """Ends the training after some time, or after some batches.

    It does so in the midst of an epoch. Counting batches repeats a training that was ended by the clock. Of a training
    that ends within its first epoch there is nothing to choose by a validation, so that there is none.

    Args:
        seconds: Wall-clock limit; ``None`` for none.
        batches: Number of batches; ``None`` for no limit.
    """

    def __init__(self, seconds: float | None = None, batches: int | None = None) -> None:
        super().__init__(None if seconds is None else timedelta(seconds=seconds), verbose=False)
        self.seconds = seconds
        self.batches = batches
        self.seen = 0
        """Number of batches so far."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Count one, and end the training after the last."""
        super().on_train_batch_end(trainer, *args, **kwargs)
        self.seen += 1
        if self.seen == self.batches:
            trainer.should_stop = True
        if trainer.should_stop and trainer.current_epoch == 0:
            trainer.check_val_every_n_epoch = 2


def training_limit(task: Task) -> TrainingLimit:
    """Limit of a job's training, as it is configured or as it was in the run that is repeated.

    Args:
        task: What the job does.

    Returns:
        Limit in time, or in batches, or none.

    Raises:
        RuntimeError: If it may train as long as a method that has not finished, or repeats a job that has not
            finished or did not count batches.
    """
    limit = task.max_time
    seconds = _training_seconds(task, limit) if isinstance(limit, str) else limit
    return TrainingLimit(seconds or None, _last_batch(task))


def _last_batch(task: Task) -> int | None:
    """Number of batches after which the training ended in the run that is repeated; ``None`` if none is."""
    if task.repeats is None:
        return None
    file = run_folder(Path(task.repeats), task.dataset, task.method.name, task.modality, task.seed) / "result.json"
    batches = json.loads(file.read_text(encoding="utf-8")).get("batches") if file.exists() else None
    if batches is None:
        msg = (
            f"{file} does not say where the training of {task.method.name} ended; finish that run, or begin it anew "
            f"in another folder if it was made before batches were counted, then repeat it."
        )
        raise RuntimeError(msg)
    return int(batches)


def _training_seconds(task: Task, method: str) -> float:
    """How long another method trained on the same data set at most, for as many modalities as this job has."""
    runs = run_folder(task.output, task.dataset, method, task.modality, task.seed).parent
    found = [json.loads(file.read_text(encoding="utf-8")) for file in runs.glob("*/result.json")]
    if not found:
        msg = f"{task.method.name} may train as long as {method}, which has not finished on {task.dataset}."
        raise RuntimeError(msg)
    longest = max(facts["training_seconds"] / _number_of_modalities(facts["modality"]) for facts in found)
    return longest * _number_of_modalities(task.modality)


def _number_of_modalities(modality: str) -> int:
    return 1 if modality in set(Modality) else len(Modality)
