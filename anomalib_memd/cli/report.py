"""The command that gathers what jobs have left."""

from pathlib import Path

from anomalib_memd.benchmark.report import write_report


def report(output: Path = Path("results/benchmark"), ablation: bool = False) -> None:
    """Rebuild tables and figures from what the jobs have left, and gather them in one HTML page.

    Args:
        output: Folder of a benchmark or an ablation.
        ablation: Whether the methods are variants of one.
    """
    print(write_report(output, ablation))  # noqa: T201
