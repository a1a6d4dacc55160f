"""The images of a folder."""

from pathlib import Path

import pandas as pd

from .reading import IMAGE_SUFFIXES, frame_names
from .split import SPLITS, read_split


def list_images(root: Path, split: str | None = None) -> list[Path]:
    """Images of a folder, of any depth, in the order of their names.

    Args:
        root: The folder. If it has a ``split.csv``, the images that it names are taken, without their masks.
        split: Of such a folder, ``train``, ``val`` or ``test`` alone.

    Raises:
        FileNotFoundError: If there is none.
        SplitError: If the ``split.csv`` cannot be used.
    """
    if (root / "split.csv").is_file():
        rows = read_split(root / "split.csv", None, None)
        found = [root / name for name in rows["image"][rows["split"].isin([split] if split else SPLITS)]]
    else:
        return images_below(root)
    if not found:
        msg = f"{root / 'split.csv'} names no image of that split."
        raise FileNotFoundError(msg)
    return sorted(found)


def images_below(folder: Path) -> list[Path]:
    """Images of any depth in the order of their names, each frame of a DICOM file by itself.

    Raises:
        FileNotFoundError: If there is none.
        ImageReadError: If a DICOM file cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not files:
        msg = f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})."
        raise FileNotFoundError(msg)
    return [Path(name) for path in files for name in frame_names(path)]


def training_rows(root: Path) -> pd.DataFrame:
    """The training images of a folder, see :func:`list_images`, as rows of a split."""
    names = [str(path.relative_to(root)) for path in list_images(root, "train")]
    return pd.DataFrame({"image": names, "class": "normal", "label": "normal", "split": "train", "mask": ""})


def split_off(paths: list[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Hold back the last images by name of each folder: neighbours are often of one recording.

    Args:
        paths: Files.
        share: Share of each folder's images that are held back, at least 0 and below 1.

    Returns:
        The images that are kept, and those that are held back.

    Raises:
        ValueError: If the share is out of range.
    """
    if not 0 <= share < 1:
        msg = f"The share of images to hold back is at least 0 and below 1, got {share}."
        raise ValueError(msg)
    kept, held_back = [], []
    for folder in sorted({path.parent for path in paths}):
        own = sorted(path for path in paths if path.parent == folder)
        first = len(own) - round(share * len(own))
        kept += own[:first]
        held_back += own[first:]
    return kept, held_back
