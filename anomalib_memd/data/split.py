"""Splits of a data set into training, validation and test images, kept as ``split.csv``."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from anomalib_memd.files import written_whole

from .reading import IMAGE_SUFFIXES, split_frame

SPLITS = ("train", "val", "test")
_COLUMNS = ("image", "class", "label", "split")


class SplitError(ValueError):
    """A split that cannot be used, or cannot be made."""


def make_split(
    root: Path,
    normal_classes: Sequence[str],
    abnormal_classes: Sequence[str],
    train: int = 1800,
    val: int = 400,
    test: int = 600,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw a split: the same number of images from each class, train on normal images alone.

    Where a number does not divide by the number of classes, the first classes give one image more.

    Args:
        root: Folder with one folder a class.
        normal_classes: Names of the normal classes.
        abnormal_classes: Names of the abnormal classes.
        train: Number of normal training images.
        val: Number of normal, and again of abnormal, validation images.
        test: Number of normal, and again of abnormal, test images.
        seed: Seed of the draw. The draw depends on it and the file names alone.

    Returns:
        Table with the columns ``image`` (relative to ``root``), ``class``, ``label`` and ``split``.

    Raises:
        SplitError: If a class is missing, empty or too small, or is both normal and abnormal.
    """
    both = set(normal_classes) & set(abnormal_classes)
    if both:
        msg = f"{root}: {', '.join(sorted(both))} cannot be normal and abnormal at once."
        raise SplitError(msg)
    random = np.random.default_rng(seed)
    rows = []
    for label, classes, sizes in (
        ("normal", normal_classes, {"train": train, "val": val, "test": test}),
        ("abnormal", abnormal_classes, {"val": val, "test": test}),
    ):
        for order, name in enumerate(classes):
            files = [f"{name}/{file.name}" for file in _class_images(root, name)]
            shares = {split: size // len(classes) + (order < size % len(classes)) for split, size in sizes.items()}
            if len(files) < sum(shares.values()):
                msg = (
                    f"{root / name} has {len(files)} images, but the split asks for {shares}; "
                    f"lower the sizes of the split."
                )
                raise SplitError(msg)
            drawn = iter(random.permutation(files))
            rows += [
                {"image": next(drawn), "class": name, "label": label, "split": split}
                for split, share in shares.items()
                for _ in range(share)
            ]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).sort_values("image", ignore_index=True)


def write_split(split: pd.DataFrame, path: Path) -> None:
    """Write a split so that a half-written file never stands under its name.

    Args:
        split: Table of :func:`make_split`.
        path: Where to write it.
    """
    with written_whole(path) as temporary:
        split.to_csv(temporary, index=False)


def read_split(
    path: Path,
    normal_classes: Sequence[str] | None = None,
    abnormal_classes: Sequence[str] | None = None,
    labelled: bool = False,
) -> pd.DataFrame:
    """Read and check a split.

    Args:
        path: ``split.csv`` with the columns ``image``, ``class``, ``label`` (``normal`` or another word) and
            ``split``, and perhaps ``mask``; files are relative to its folder.
        normal_classes: Normal classes to keep; all if ``None``.
        abnormal_classes: Abnormal classes to keep; all if ``None``.
        labelled: Whether it is for learning from labelled images. Training images may then be abnormal, and no split
            needs to have normal and abnormal ones.

    Returns:
        Table with the columns of the file, ``mask`` empty where there is none.

    Raises:
        SplitError: If columns are missing, a class is unknown or empty, a file is missing or stands in the
            split twice, a split is empty, or the training images are not all normal. Only ``train`` and ``val`` may be
            empty, both together: such a set serves to test what was trained elsewhere. Abnormal images may be missing
            altogether, not from one split alone.
    """
    table = read_table(path)
    missing = [column for column in _COLUMNS if column not in table]
    if missing:
        msg = f"{path} has no column {', '.join(missing)}; it has {', '.join(table.columns)}."
        raise SplitError(msg)
    if "mask" not in table:
        table["mask"] = ""
    _check_rows(table, path, labelled)
    table = _keep_classes(table, path, normal_classes, abnormal_classes)
    for split in ("test",) if is_for_test_alone(table) else SPLITS:
        labels = set(table.loc[table.split == split, "label"])
        if labelled and labels:
            continue
        if "normal" not in labels:
            msg = f"{path}: the {split} split has no normal image."
            raise SplitError(msg)
        if split != "train" and len(labels) < 2 and not has_normal_images_alone(table):
            msg = f"{path}: the {split} split has no abnormal image, without which nothing can be measured."
            raise SplitError(msg)
    return table.reset_index(drop=True)


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file as text.

    Raises:
        SplitError: If it is missing, no table, or no text in UTF-8.
    """
    try:
        content = path.read_bytes()
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        msg = f"{path}: no such table."
        raise SplitError(msg) from error
    except (ValueError, OSError) as error:
        msg = f"{path}: no readable table ({' '.join(str(error).split())}); write it as CSV in UTF-8."
        raise SplitError(msg) from error
    # pandas would read on beyond a zero byte, and take a column without a name for names of rows.
    if b"\0" in content or not isinstance(table.index, pd.RangeIndex):
        msg = f"{path}: no readable table (zero bytes, or rows longer than the header); write it as CSV in UTF-8."
        raise SplitError(msg)
    return table


def has_normal_images_alone(split: pd.DataFrame) -> bool:
    """Whether a split has no abnormal image at all, so that little can be measured on it."""
    return bool((split["label"] == "normal").all())


def is_for_test_alone(split: pd.DataFrame) -> bool:
    """Whether a split has test images alone, as that of another hospital has."""
    return len(split) > 0 and set(split["split"]) == {"test"}


def _class_images(root: Path, name: str) -> list[Path]:
    folder = root / name
    if not folder.is_dir():
        found = ", ".join(sorted(f.name for f in root.iterdir() if f.is_dir())) if root.is_dir() else "no folder at all"
        msg = f"{root} has no class '{name}'; it has {found}."
        raise SplitError(msg)
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        msg = f"{folder} holds no image."
        raise SplitError(msg)
    return files


def _check_rows(table: pd.DataFrame, path: Path, labelled: bool) -> None:
    unknown = sorted(set(table.split) - set(SPLITS))
    if unknown:
        msg = f"{path}: unknown split {', '.join(map(repr, unknown))}; use {', '.join(SPLITS)}."
        raise SplitError(msg)
    for column in ("image", "class", "label"):
        empty = table.index[table[column].str.strip() == ""]
        if len(empty):
            msg = f"{path}: row {empty[0] + 2} has no {column}."
            raise SplitError(msg)
    meant = table.label.str.strip().str.lower() == "normal"
    misspelt = table.loc[meant & (table.label != "normal"), "label"]
    if len(misspelt):
        msg = f"{path}: the label {misspelt.iloc[0]!r} would count as abnormal; write 'normal'."
        raise SplitError(msg)
    twice = table.loc[table.image.duplicated(), "image"]
    if len(twice):
        places = ", ".join(table.loc[table.image == twice.iloc[0], "split"])
        msg = f"{path}: {twice.iloc[0]} stands in it {(table.image == twice.iloc[0]).sum()} times ({places})."
        raise SplitError(msg)
    wrong = table.loc[(table.split == "train") & (table.label != "normal"), "image"]
    if len(wrong) and not labelled:
        msg = f"{path}: {len(wrong)} training images are abnormal, the first is {wrong.iloc[0]}; train on normal ones."
        raise SplitError(msg)
    for column in ("image", "mask"):
        absent = [name for name in table[column] if name and not _is_file(split_frame(path.parent / name)[0])]
        if absent:
            msg = (
                f"{path} names {len(absent)} {column} files that do not exist, the first is {path.parent / absent[0]}."
            )
            raise SplitError(msg)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # Such as a name that is too long.
        return False


def _keep_classes(
    table: pd.DataFrame,
    path: Path,
    normal_classes: Sequence[str] | None,
    abnormal_classes: Sequence[str] | None,
) -> pd.DataFrame:
    is_normal = table.label == "normal"
    kept = []
    for rows, classes, label in (
        (table[is_normal], normal_classes, "normal"),
        (table[~is_normal], abnormal_classes, "abnormal"),
    ):
        known = sorted(set(rows["class"]))
        wrong = [name for name in classes or () if name not in known]
        if wrong:
            msg = f"{path} has no {label} class '{wrong[0]}'; its {label} classes are {', '.join(known) or 'none'}."
            raise SplitError(msg)
        kept.append(rows if classes is None else rows[rows["class"].isin(classes)])
    return pd.concat(kept)
