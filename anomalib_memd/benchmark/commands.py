"""The commands of ``anomalib-memd`` that measure."""

from pathlib import Path

from anomalib.data import get_datamodule
from rich.console import Console
from rich.table import Table

from .config import BenchmarkConfig, BenchmarkConfigError, load_config
from .deployment import measure_deployment
from .job import FAILED
from .leakage import check_dataset
from .markup import titled_markdown, to_markdown, write_tables
from .pipeline import Benchmark
from .report import write_report
from .task import run_folder


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
) -> None:
    """Train and test all methods on all data sets, and print the tables.

    Jobs that have finished before are not run again; a job that fails is reported and does not stop the others.

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
    """
    if repeat is not None and repeat.resolve() == output.resolve():
        msg = f"{repeat} cannot be repeated into itself; name another folder by --output."
        raise BenchmarkConfigError(msg)
    chosen = load_config(config, root, quick, methods, datasets, seeds, repeat)
    if not deployment:
        _run(chosen, output, ablation=False)
        return
    method = next((m for m in chosen.methods if m.paired), None)
    if method is None:
        msg = f"{config} has no paired method to deploy; leave MEMD among the methods."
        raise ValueError(msg)
    dataset, seed = next(iter(chosen.datasets)), (method.seeds or chosen.seeds)[0]
    ckpt = run_folder(output, dataset, method.name, "paired", seed) / "model.ckpt"
    if not ckpt.is_file():
        _run(load_config(config, root, quick, [method.name], [dataset], [seed]), output, ablation=False)
    datamodule = get_datamodule(chosen.datasets[dataset])
    print(measure_deployment(ckpt, datamodule, output / "deployment"))  # noqa: T201


def ablate(
    config: Path = Path("configs/ablation.yaml"),
    output: Path = Path("results/ablation"),
    root: Path = Path("datasets"),
    quick: bool = False,
    methods: list[str] | None = None,
    datasets: list[str] | None = None,
    seeds: list[int] | None = None,
) -> None:
    """Train and test variants of MEMD that differ in one argument each, and print the tables.

    Args:
        config: Configuration, see configs/ablation.yaml.
        output: Folder of scores, tables and kept features.
        root: Folder of the data sets.
        quick: Run the short version that the section 'quick' of the configuration describes.
        methods: Names of the variants to run, and with them those that they need; all if not given.
        datasets: Names of the data sets to run on; all if not given.
        seeds: Seeds, instead of those of the configuration.
    """
    _run(load_config(config, root, quick, methods, datasets, seeds), output, ablation=True)


def _run(config: BenchmarkConfig, output: Path, ablation: bool) -> None:
    results = Benchmark(config, output).run()
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


def report(output: Path = Path("results/benchmark"), ablation: bool = False) -> None:
    """Rebuild tables and figures from what the jobs have left, and gather them in one HTML page.

    Args:
        output: Folder of a benchmark or an ablation.
        ablation: Whether the methods are variants of one.
    """
    print(write_report(output, ablation))  # noqa: T201


def check(folder: Path, similarity: float = 0.95) -> None:
    """Look for near-duplicates across the splits of a data set, and for trivial cues that separate its classes.

    Args:
        folder: Folder with a split.csv.
        similarity: Correlation of two small grey images from which they count as near-duplicates.
    """
    duplicates, cues = check_dataset(folder, similarity)
    print(f"{len(duplicates)} near-duplicates across splits (correlation of at least {similarity})\n")  # noqa: T201
    if len(duplicates):
        print(to_markdown(duplicates.head(20)), "\n")  # noqa: T201
    print("How well trivial cues separate normal from abnormal test images (image AUROC, 0.5 is chance)\n")  # noqa: T201
    print(to_markdown(cues))  # noqa: T201
