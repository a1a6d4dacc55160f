"""How long a job trains at most: some time, as long as another method, or as far as an earlier run came."""

import json
from pathlib import Path

from anomalib_memd.modality import Modality

from .task import Task, run_folder


def limit_in_time(task: Task) -> float | None:
    """Seconds that a job trains at most; ``None`` if there is no limit.

    Args:
        task: What the job does.

    Raises:
        RuntimeError: If it may train as long as a method that has not finished.
    """
    limit = task.max_time
    return (_training_seconds(task, limit) if isinstance(limit, str) else limit) or None


def limit_in_batches(task: Task) -> list[int] | None:
    """Number of batches after which each phase of a training ended in the run that is repeated; ``None`` if none is.

    Args:
        task: What the job does.

    Raises:
        RuntimeError: If that job has not finished, or did not count batches.
    """
    if task.repeats is None:
        return None
    file = run_folder(Path(task.repeats), task.dataset, task.method.name, task.modality, task.seed) / "result.json"
    facts = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if "ended_by" not in facts:
        msg = (
            f"{file} does not say where the training of {task.method.name} ended; finish that run, or begin it anew "
            f"in another folder if it was made before batches were counted, then repeat it."
        )
        raise RuntimeError(msg)
    return facts["batches"]


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
