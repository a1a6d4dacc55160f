"""Splitting a folder of normal and abnormal images, so that no patient stands in two splits."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from .folder import images_below
from .reading import find_partner, split_frame
from .split import SplitError, read_table

NORMAL, ABNORMAL, MASKS = "normal", "abnormal", "masks"
"""Names of the folders."""
TABLE = "images.csv"
"""File that may tell to whom images belong."""
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
"""Share of the normal images in each split; abnormal ones are shared by the last two in equal parts."""


def has_plain_layout(root: Path) -> bool:
    """Whether a folder has its normal images below ``normal``."""
    return (root / NORMAL).is_dir()


def split_folder(
    root: Path,
    seed: int = 0,
    group_pattern: str | None = None,
    group_column: str | None = None,
    test_only: bool = False,
) -> pd.DataFrame:
    """Draw a split of the images below ``normal`` and, if it is there, ``abnormal``.

    Masks are the files of the same names below ``masks``. A group, such as a patient or a video, is in one split
    alone; the frames of a DICOM file are a group in any case. Where a group with abnormal images is needed for
    training, its abnormal images are left out.

    Args:
        root: The folder.
        seed: Seed of the draw. The draw depends on it and on the file names alone.
        group_pattern: Regular expression that finds the group in the path of an image relative to ``root``; its first
            parenthesis if it has one, otherwise all of what it matches.
        group_column: Column of ``images.csv`` in ``root`` that tells the group; its column ``image`` has the paths.
        test_only: Whether all images are for testing.

    Returns:
        Table as of :func:`.read_split`, with a column ``group``.

    Raises:
        SplitError: If a group is not found for an image, or the groups are too few to fill the splits.
    """
    rows = pd.DataFrame(_rows(root), columns=["image", "class", "label", "mask"])
    rows["group"] = _groups(rows["image"], root, group_pattern, group_column)
    if test_only:
        rows["split"] = "test"
    else:
        rows["split"] = rows["group"].map(_assign(rows, seed))
        rows = rows[~((rows["split"] == "train") & (rows["label"] == ABNORMAL))]
        _require_filled(rows, root)
    return rows[["image", "class", "label", "split", "mask", "group"]].sort_values("image", ignore_index=True)


def _rows(root: Path) -> Iterator[tuple[str, str, str, str]]:
    for label in (NORMAL, ABNORMAL):
        folder = root / label
        if label == ABNORMAL and not folder.is_dir():
            return
        for path in images_below(folder):
            inside = path.relative_to(folder)
            partner = None
            if label == ABNORMAL:
                partner = find_partner(path, folder, root / MASKS) or find_partner(path, root, root / MASKS)
            mask = "" if partner is None else partner.relative_to(root).as_posix()
            name = inside.parts[0] if len(inside.parts) > 1 else label
            yield path.relative_to(root).as_posix(), name, label, mask


def _groups(images: pd.Series, root: Path, pattern: str | None, column: str | None) -> list[str]:
    if pattern is not None and column is not None:
        msg = "Groups are told by group_pattern or by group_column, not by both."
        raise SplitError(msg)
    if column is not None:
        return _from_table(images, root / TABLE, column)
    if pattern is None:
        return [split_frame(image)[0].as_posix() for image in images]
    try:
        expression = re.compile(pattern)
    except re.error as error:
        msg = f"group_pattern {pattern!r} is no regular expression ({error})."
        raise SplitError(msg) from error
    found = [expression.search(image) for image in images]
    for image, match in zip(images, found, strict=True):
        if match is None:
            msg = f"{root / image}: group_pattern {pattern!r} finds no group in {image}."
            raise SplitError(msg)
    return [match.group(1 if expression.groups else 0) for match in found if match is not None]


def _from_table(images: pd.Series, path: Path, column: str) -> list[str]:
    if not path.is_file():
        msg = f"{path} is not there; it has to hold the columns image and {column}."
        raise SplitError(msg)
    table = read_table(path)
    absent = {"image", column} - set(table.columns)
    if absent:
        msg = f"{path} has no column {', '.join(sorted(absent))}; it has {', '.join(table.columns)}."
        raise SplitError(msg)
    known = dict(zip(table["image"], table[column], strict=True))
    files = [split_frame(image)[0].as_posix() for image in images]
    for file in files:
        if not known.get(file):
            msg = f"{path} does not tell the {column} of {file}."
            raise SplitError(msg)
    return [known[file] for file in files]


def _assign(rows: pd.DataFrame, seed: int) -> dict[str, str]:
    """Split of each group: normal groups fill the training images first, then each goes where most is lacking."""
    counts = pd.crosstab(rows["group"], rows["label"]).reindex(columns=[NORMAL, ABNORMAL], fill_value=0)
    random = np.random.default_rng(seed)
    counts = counts.sort_index().iloc[random.permutation(len(counts))]
    order = counts.assign(has=counts[ABNORMAL] > 0).sort_values("has", kind="stable")
    normal, abnormal = counts[NORMAL].sum(), counts[ABNORMAL].sum()
    lacking = {
        NORMAL: {split: share * normal for split, share in SHARES.items()},
        ABNORMAL: {"train": 0.0, "val": abnormal / 2, "test": abnormal / 2},
    }
    wanted = {label: dict(values) for label, values in lacking.items()}
    assigned = {}
    for group, own in order.iterrows():
        # A group of normal images alone trains while it is needed there.
        if not own[ABNORMAL] and lacking[NORMAL]["train"] >= min(1.0, own[NORMAL] / 2):
            split = "train"
        else:
            label = NORMAL if own[NORMAL] else ABNORMAL
            split = max(("val", "test", "train"), key=lambda name: lacking[label][name] / max(wanted[label][name], 1))
        assigned[str(group)] = split
        lacking[NORMAL][split] -= own[NORMAL]
        lacking[ABNORMAL][split] -= own[ABNORMAL]
    return assigned


def _require_filled(rows: pd.DataFrame, root: Path) -> None:
    needed = [(split, NORMAL) for split in SHARES]
    if (rows["label"] == ABNORMAL).any() or (root / ABNORMAL).is_dir():
        needed += [("val", ABNORMAL), ("test", ABNORMAL)]
    for split, label in needed:
        if not ((rows["split"] == split) & (rows["label"] == label)).any():
            msg = (
                f"{root}: {rows['group'].nunique()} groups are too few for a split: {split} has no {label} image. Add "
                f"images, leave out the groups, or write a split.csv by hand."
            )
            raise SplitError(msg)
