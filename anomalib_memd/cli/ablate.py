"""The command that trains and tests variants of MEMD."""

from pathlib import Path

from anomalib_memd.benchmark.config import load_config
from anomalib_memd.cluster import RunnerName

from .benchmark import placed, run_jobs


def ablate(
    config: Path = Path("configs/ablation.yaml"),
    output: Path = Path("results/ablation"),
    root: Path = Path("datasets"),
    quick: bool = False,
    methods: list[str] | None = None,
    datasets: list[str] | None = None,
    seeds: list[int] | None = None,
    runner: RunnerName = "local",
    job_cores: int = 2,
) -> None:
    """Train and test variants of MEMD that differ in one argument each, and print the tables.

    An ablation is there to choose by, so it never opens ``test``.

    Args:
        config: Configuration, see configs/ablation.yaml.
        output: Folder of scores, tables and kept features.
        root: Folder of the data sets.
        quick: Run the short version that the section 'quick' of the configuration describes.
        methods: Names of the variants to run, and with them those that they need; all if not given.
        datasets: Names of the data sets to run on; all if not given.
        seeds: Seeds, instead of those of the configuration.
        runner: See 'anomalib-memd benchmark'.
        job_cores: Likewise.
    """
    root, cores = placed(runner, root, job_cores)
    run_jobs(load_config(config, root, quick, methods, datasets, seeds), output, ablation=True, ray_cores=cores)
