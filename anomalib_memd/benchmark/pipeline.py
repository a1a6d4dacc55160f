"""The benchmark as one of anomalib's pipelines."""

import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from anomalib.pipelines.components import JobGenerator
from anomalib.pipelines.components.base import Pipeline, Runner
from anomalib.pipelines.components.runners import ParallelRunner, SerialRunner

from anomalib_memd.files import used_alone
from anomalib_memd.modality import Modality

from .config import BenchmarkConfig, Method
from .job import BenchmarkJob
from .ray_runner import RayRunner
from .splits import CHOOSING, TEST, log_opening
from .task import Task


class BenchmarkJobGenerator(JobGenerator):
    """Makes the jobs of a benchmark, in the order of methods.

    Args:
        config: The benchmark.
        output: Its folder.
        splits: What methods are tested on.
    """

    def __init__(self, config: BenchmarkConfig, output: Path, splits: tuple[str, ...] = CHOOSING) -> None:
        self.config = config
        self.output = output
        self.splits = splits

    @property
    def job_class(self) -> type[BenchmarkJob]:
        """The class of the jobs."""
        return BenchmarkJob

    def generate_jobs(self, args: Any = None, prev_stage_result: Any = None) -> Generator[BenchmarkJob, None, None]:
        """Yield one job for each data set, method, modality and seed."""
        del args, prev_stage_result
        config = self.config
        for dataset in config.datasets:
            for method in config.methods:
                if method.datasets is not None and dataset not in method.datasets:
                    continue
                seeds = config.seeds if method.seeds is None else method.seeds
                modalities = _modalities(method)
                # Neither data nor seed change what an architecture costs in use.
                first = next(iter(method.datasets or config.datasets)), seeds[0], modalities[0]
                for seed in seeds:
                    for modality in modalities:
                        yield BenchmarkJob(
                            Task(
                                method=method,
                                dataset=dataset,
                                datasets={name: config.datasets[name] for name in config.tested_on(method, dataset)},
                                modality=modality,
                                seed=seed,
                                output=self.output,
                                accelerator=config.accelerator,
                                latency=config.latency and (dataset, seed, modality) == first,
                                max_time=config.time_limit(method, dataset),
                                repeats=config.repeats if method.learns else None,
                                splits=self.splits,
                            )
                        )


def _modalities(method: Method) -> list[str]:
    if method.paired:
        return ["paired"]
    return [m.value for m in Modality] if method.modality is None else [method.modality]


class Benchmark(Pipeline):
    """Run all jobs that have not been run, one by one, or one on each GPU.

    Args:
        config: The benchmark.
        output: Its folder, which one run at a time uses.
        open_test: Why ``test`` is opened; with ``None`` methods are tested on images to choose by alone.
        ray_cores: Number of cores that a job takes of a Ray cluster; with ``None`` jobs run on this machine.
    """

    def __init__(
        self, config: BenchmarkConfig, output: str | Path, open_test: str | None = None, ray_cores: int | None = None
    ) -> None:
        self.config = config
        # Workers on other machines start in another folder.
        self.output = Path(output) if ray_cores is None else Path(output).resolve()
        self.open_test = open_test
        self.ray_cores = ray_cores

    def _generators(self) -> list[BenchmarkJobGenerator]:
        splits = CHOOSING if self.open_test is None else (*CHOOSING, TEST)
        turns = (replace(self.config, methods=methods) for methods in _in_turns(self.config))
        return [BenchmarkJobGenerator(turn, self.output, splits) for turn in turns]

    def _setup_runners(self, args: dict | None = None) -> list[Runner]:
        """One runner after the other, so that what jobs need of others is there, however many run at a time."""
        del args
        generators = self._generators()
        if self.ray_cores is not None:
            gpus = int(self.config.accelerator == "cuda")
            return [RayRunner(generator, self.ray_cores, gpus) for generator in generators]
        at_a_time = _jobs_at_a_time(self.config.accelerator)
        return [ParallelRunner(g, at_a_time) if at_a_time > 1 else SerialRunner(g) for g in generators]

    def run(self, args: Any = None) -> pd.DataFrame:  # type: ignore[override]
        """Run it.

        Args:
            args: Unused; the configuration was given at the start.

        Returns:
            One row a job: ``dataset, method, modality, seed, status, error``.

        Raises:
            RuntimeError: If another run uses the folder.
            ValueError: If test images are to be opened without a reason.
        """
        del args
        with used_alone(self.output):
            self._log_opening()
            try:
                return pd.concat([runner.run({}) for runner in self._setup_runners()], ignore_index=True)
            finally:
                for unfinished in self.output.glob(".job-*"):
                    shutil.rmtree(unfinished, ignore_errors=True)  # Left by jobs that were killed.

    def _log_opening(self) -> None:
        """Before test images are opened, say so: a run that fails afterwards has seen them too."""
        if self.open_test is None:
            return
        jobs = (job for generator in self._generators() for job in generator.generate_jobs())
        opened = {dataset: None for job in jobs if job.opens_test for dataset in job.task.datasets}
        if opened:
            log_opening(Path(self.config.test_log), list(opened), self.open_test)


def _jobs_at_a_time(accelerator: str) -> int:
    return torch.cuda.device_count() if accelerator == "cuda" else 1


def _in_turns(config: BenchmarkConfig) -> list[tuple[Method, ...]]:
    """Methods that need no other, then those that need these, and so on."""
    turn: dict[str, int] = {}
    for method in config.methods:
        turn[method.name] = max((1 + turn[name] for name in config.needed_by(method)), default=0)
    return [tuple(m for m in config.methods if turn[m.name] == n) for n in range(1 + max(turn.values()))]
