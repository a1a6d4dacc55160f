"""What one job of a benchmark does, what its results depend on, and where they are."""

import hashlib
import json
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .config import Method
from .splits import CHOOSING


@dataclass(frozen=True)
class Task:
    """What one job does, and where it leaves its results.

    Args:
        method: The method.
        dataset: Name of the data set it is trained and tested on.
        datasets: Datamodule of every data set it is tested on, its own among them.
        modality: ``wli``, ``nbi``, or ``paired``.
        seed: Seed.
        output: Folder of the whole benchmark.
        accelerator: ``cpu`` or ``cuda``.
        latency: Whether to measure latency, number of parameters and size.
        max_time: Wall-clock limit of training: seconds, or the method that it may last as long as.
        repeats: Folder of an earlier run of the benchmark, after whose number of batches the training ends.
        splits: What it is tested on.
    """

    method: Method
    dataset: str
    datasets: dict[str, dict[str, Any]]
    modality: str
    seed: int
    output: Path
    accelerator: str = "cpu"
    latency: bool = True
    max_time: float | str | None = None
    repeats: str | None = None
    splits: tuple[str, ...] = CHOOSING

    @property
    def folder(self) -> Path:
        """Where the results of this job are."""
        return run_folder(self.output, self.dataset, self.method.name, self.modality, self.seed)

    @property
    def digest(self) -> str:
        """Digest of everything that the results depend on, but for the code."""
        # What is left at its default does not count, so that a new option does not make old results stale.
        method = {f.name: value for f in fields(Method) if (value := getattr(self.method, f.name)) != _default(f)}
        content = asdict(self) | {"output": None, "latency": None, "method": method | {"order": None, "seeds": None}}
        del content["splits"]
        if self.repeats is None:
            del content["repeats"]
        return hashlib.sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()[:16]


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def run_folder(output: Path, dataset: str, method: str, modality: str, seed: int) -> Path:
    """Folder of one job's results below that of the benchmark."""
    safe = "".join(c if c.isalnum() or c in "-_.=" else "_" for c in method)
    return output / "runs" / dataset / safe / f"{modality}-seed{seed}"
