"""The command that looks for what makes a data set easier than the clinic."""

from pathlib import Path

from anomalib_memd.benchmark.leakage import check_dataset
from anomalib_memd.benchmark.markup import to_markdown


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
