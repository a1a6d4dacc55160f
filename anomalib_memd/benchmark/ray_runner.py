"""Jobs of a benchmark on many machines."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from anomalib.pipelines.components.base import JobGenerator, Runner

from anomalib_memd.cluster import connect

from .job import BenchmarkJob

SECOND_TRIES = 2
"""How often a job is begun again whose machine was lost."""


class RayRunner(Runner):
    """Runs jobs on the cores and GPUs of a Ray cluster.

    Folders of data and of results must be the same on all machines, such as a network drive. What jobs find is read
    from there: nothing that a worker returns is unpickled.

    Args:
        generator: Makes the jobs.
        cores: Number of cores of a job.
        gpus: Number of GPUs of a job.
    """

    def __init__(self, generator: JobGenerator, cores: int, gpus: int = 0) -> None:
        super().__init__(generator)
        self.cores, self.gpus = cores, gpus

    def run(self, args: dict, prev_stage_results: Any = None) -> pd.DataFrame:
        """Run all jobs that are not done.

        Raises:
            RuntimeError: If there is no cluster, or no machine of it is large enough for a job.
        """
        jobs: list[BenchmarkJob] = list(self.generator(args, prev_stage_results))
        if waiting := [job for job in jobs if not job.is_finished()]:
            self._run_remotely(waiting)
        return BenchmarkJob.collect([job.outcome() for job in jobs])

    def _run_remotely(self, jobs: list[BenchmarkJob]) -> None:
        ray = connect()
        self._require_room(ray)
        task = ray.remote(_run).options(num_cpus=self.cores, num_gpus=self.gpus, max_retries=SECOND_TRIES)
        waiting = {task.remote(job): job for job in jobs}
        for reference in _as_they_end(ray, list(waiting)):
            outcome = waiting[reference].outcome()
            print(f"{outcome['dataset']}: {outcome['method']}, {outcome['modality']}: {outcome['status']}.", flush=True)  # noqa: T201

    def _require_room(self, ray: Any) -> None:
        largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        if largest < self.cores:
            msg = f"A job takes {self.cores} cores, the largest machine has {largest:.0f}; lower --job_cores."
            raise RuntimeError(msg)
        if self.gpus > ray.cluster_resources().get("GPU", 0):
            msg = "The configuration asks for accelerator cuda, and the cluster has no GPU."
            raise RuntimeError(msg)


def _run(job: BenchmarkJob) -> None:
    job.run()


def _as_they_end(ray: Any, references: list[Any]) -> Iterator[Any]:
    while references:
        ended, references = ray.wait(references, fetch_local=False)
        yield from ended
