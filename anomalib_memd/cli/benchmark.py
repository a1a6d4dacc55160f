"""The command that trains and tests all methods."""

from pathlib import Path

from anomalib.data import get_datamodule
from rich.console import Console
from rich.table import Table

from anomalib_memd.benchmark.config import BenchmarkConfig, BenchmarkConfigError, load_config
from anomalib_memd.benchmark.deployment import measure_deployment
from anomalib_memd.benchmark.job import FAILED
from anomalib_memd.benchmark.markup import titled_markdown, write_tables
from anomalib_memd.benchmark.pipeline import Benchmark
from anomalib_memd.benchmark.task import run_folder
from anomalib_memd.cluster import RunnerName, require_ray


def benchmark(
    config: Path = Path("configs/benchmark.yaml"),
    output: Path = Path("results/benchmark"),
    root: Path = Path("datasets"),
    quick: bool = False,
    methods: list[str] | None = None,
    datasets: list[str] | None = None,
    seeds: list[int] | None = None,
    deployment: bool = False,
    repeat: Path | None = None,
    open_test: str | None = None,
    runner: RunnerName = "local",
    job_cores: int = 2,
) -> None:
    """Train and test all methods on all data sets, and print the tables.

    Methods are tested on images to choose by: ``val``, and the ``development`` of a data set that has one. Their
    ``test`` is opened where ``open_test`` says why. Each opening is logged, as a figure is worth less with each.

    Jobs that have finished before are not run again, and opening ``test`` trains none of their models again. A job
    that fails is reported and does not stop the others.

    Args:
        config: Configuration, see configs/benchmark.yaml.
        output: Folder of scores, tables and kept features.
        root: Folder of the data sets.
        quick: Run the short version that the section 'quick' of the configuration describes.
        methods: Names of the methods to run, and with them those that they need; all if not given.
        datasets: Names of the data sets to run on; all if not given.
        seeds: Seeds, instead of those of the configuration.
        deployment: Measure the exported students of MEMD instead: agreement, latency, memory and size. Takes MEMD
            of the first data set and seed, and trains it first unless that has been done.
        repeat: Folder of an earlier run to repeat into another: methods that had a limit in time there are trained
            for as many batches as they were then, however long that takes, and come to the same figures.
        open_test: Why ``test`` is opened. Date, data sets, commit and reason go into the ``test_log`` of the
            configuration.
        runner: Where jobs run: local, or ray, on the Ray cluster of the environment variable RAY_ADDRESS.
        job_cores: Number of cores that a job takes of the cluster.
    """
    root, cores = placed(runner, root, job_cores)
    if deployment and open_test is not None:
        msg = "What --deployment measures needs no test images; leave out --open_test."
        raise BenchmarkConfigError(msg)
    if repeat is not None and repeat.resolve() == output.resolve():
        msg = f"{repeat} cannot be repeated into itself; name another folder by --output."
        raise BenchmarkConfigError(msg)
    chosen = load_config(config, root, quick, methods, datasets, seeds, repeat)
    if not deployment:
        run_jobs(chosen, output, ablation=False, open_test=open_test, ray_cores=cores)
        return
    method = next((m for m in chosen.methods if m.paired), None)
    if method is None:
        msg = f"{config} has no paired method to deploy; leave MEMD among the methods."
        raise ValueError(msg)
    dataset, seed = next(iter(chosen.datasets)), (method.seeds or chosen.seeds)[0]
    ckpt = run_folder(output, dataset, method.name, "paired", seed) / "model.ckpt"
    if not ckpt.is_file():
        run_jobs(load_config(config, root, quick, [method.name], [dataset], [seed]), output, ablation=False)
    datamodule = get_datamodule(chosen.datasets[dataset])
    print(measure_deployment(ckpt, datamodule, output / "deployment"))  # noqa: T201


def placed(runner: RunnerName, root: Path, job_cores: int) -> tuple[Path, int | None]:
    """Folder of the data sets, and number of cores of a Ray cluster that a job takes, if jobs run on one.

    Raises:
        RuntimeError: If they are to, and Ray is not installed.
    """
    if runner == "local":
        return root, None
    require_ray()
    return root.resolve(), job_cores  # Workers on other machines start in another folder.


def run_jobs(
    config: BenchmarkConfig,
    output: Path,
    ablation: bool,
    open_test: str | None = None,
    ray_cores: int | None = None,
) -> None:
    """Run all jobs that are not done, and print the tables.

    Args:
        config: Methods, data sets and seeds.
        output: Folder of scores and tables.
        ablation: Whether the methods are variants of one.
        open_test: Why ``test`` is opened, if it is.
        ray_cores: Number of cores that a job takes of a Ray cluster, if they run on one.

    Raises:
        RuntimeError: If jobs failed, after all others have run.
    """
    results = Benchmark(config, output, open_test, ray_cores).run()
    failed = results[results.status == FAILED]
    table = Table(*failed.columns, title=f"{len(results) - len(failed)} jobs finished, {len(failed)} failed")
    for row in failed.itertuples(index=False):
        table.add_row(*map(str, row))
    Console().print(table)
    if len(failed) < len(results):
        print(titled_markdown(write_tables(output, ablation)))  # noqa: T201
    if len(failed):
        msg = (
            f"{len(failed)} of {len(results)} jobs failed, see {output}/runs/**/*.error.txt; run again to repeat them."
        )
        raise RuntimeError(msg)
