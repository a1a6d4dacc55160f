"""Datamodules for methods that learn from labelled abnormal images: few of them, those of other organs, or masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from .captioned import LabelledDataset
from .dataset import DataModality, EndoscopyDataset
from .kvasir import Kvasir
from .pseudo_text import TEMPLATE, PseudoText
from .split import SplitError, read_split, write_split


class Labelled(Kvasir):
    """Images of which some labelled abnormal ones are trained on. What they are is written to ``training.csv``."""

    labelled = True

    def _read_split(self) -> pd.DataFrame:
        rows = self._draw(super()._read_split())
        if self.trainer is not None:
            write_split(rows[rows.split == "train"], Path(self.trainer.default_root_dir) / "training.csv")
        return rows

    def _draw(self, split: pd.DataFrame) -> pd.DataFrame:
        """The rows that are used, as they are used."""
        raise NotImplementedError

    def _dataset(
        self, split: pd.DataFrame, kind: type[EndoscopyDataset] = EndoscopyDataset, **options: Any
    ) -> EndoscopyDataset:
        return super()._dataset(split, LabelledDataset if set(split.split) == {"train"} else kind, **options)


class FewShot(Labelled):
    """A few normal and as many labelled abnormal images to learn from.

    The normal ones are drawn from the training images. The abnormal ones are drawn from those of the training images,
    or, where all these are normal, from the validation images, which lose them. No test image is drawn.

    Args:
        shots: Number of normal images, and of abnormal ones again.
        shots_seed: Seed of the draw; that of the run if ``None``.
        **options: Options of :class:`.Kvasir`.

    Raises:
        SplitError: When it is set up, if there are too few images to draw from.
    """

    def __init__(self, shots: int = 4, shots_seed: int | None = 0, **options: Any) -> None:
        if shots < 1:
            msg = f"Few-shot learning needs at least 1 shot, got shots={shots}."
            raise ValueError(msg)
        super().__init__(**options)
        self.shots = shots
        self.shots_seed = shots_seed

    def _draw(self, split: pd.DataFrame) -> pd.DataFrame:
        random = _generator(self.shots_seed)
        normal = _sample(split, "normal", self.shots, random, ("train",), self.split_path)
        abnormal = _sample(split, "abnormal", self.shots, random, _labelled_in(split), self.split_path)
        rest = split[(split.split != "train") & ~split.image.isin(abnormal.image)]
        if not (rest[rest.split == "val"].label != "normal").any():
            msg = f"{self.split_path}: shots={self.shots} leaves no abnormal validation image; draw fewer."
            raise SplitError(msg)
        return pd.concat([normal, abnormal, rest])


class LeaveOneOrganOut(Labelled):
    """Labelled images of other data sets to learn from; no image of the target is seen before it is tested.

    Of each other data set, three quarters of the abnormal images that are not its ``test`` are trained on, and the
    others are validated on; each time with as many normal images.

    Args:
        roots: Folders of data sets with a ``split.csv``, the target perhaps among them.
        root: Folder of the target, whose ``test`` is tested.
        draw_seed: Seed of the draw; that of the run if ``None``.
        **options: Options of :class:`.Kvasir`, but for ``nbi_root``.

    Raises:
        SplitError: When it is set up, if there is no other data set, or it has too few images.
    """

    def __init__(
        self, roots: Sequence[Path | str], root: Path | str, draw_seed: int | None = 0, **options: Any
    ) -> None:
        super().__init__(root=root, **options)
        self.others = [Path(other) for other in roots if Path(other).resolve() != self.root.resolve()]
        self.draw_seed = draw_seed

    def _draw(self, split: pd.DataFrame) -> pd.DataFrame:
        if not self.others:
            msg = f"{self.root}: there is no other data set to learn from; name more than the target in roots."
            raise SplitError(msg)
        random = _generator(self.draw_seed)
        parts = [split[split.split == "test"]]
        for other in self.others:
            rows = read_split(other / "split.csv", labelled=True)
            for column in ("image", "mask"):
                rows[column] = [str((other / name).resolve()) if name else "" for name in rows[column]]
            count = int((rows[rows.split != "test"].label != "normal").sum())
            sizes = {"train": count - count // 4, "val": count // 4}
            for label in ("normal", "abnormal"):
                drawn = _sample(rows, label, count, random, ("train", "val"), other)
                parts.append(drawn.assign(split=np.repeat(list(sizes), list(sizes.values()))))
        return pd.concat(parts)


class Segmentation(Labelled):
    """Images with masks and texts, for supervised segmentation.

    ``split.csv`` may name abnormal training images. Where it names none, a share of the abnormal validation images is
    trained on, and the others are validated on.

    Args:
        root: Folder of the data set.
        modality: ``wli`` or ``nbi``.
        abnormal_share: That share, above 0 and below 1.
        normal_ratio: Number of normal training images for each abnormal one, where there are as many.
        draw_seed: Seed of both draws.
        text_template: See :class:`.PseudoText`.
        text_sections: Likewise. ``record`` gives the label away.
        metadata: Values of columns that ``split.csv`` lacks, such as ``{organ: colon}``.
        **options: Options of :class:`.Kvasir`.

    Raises:
        SplitError: When it is set up, if an abnormal image has no mask, or there is none.
        ValueError: If an option is out of its range.
    """

    def __init__(
        self,
        root: Path | str = "datasets/kvasir",
        modality: DataModality | str = DataModality.WLI,
        abnormal_share: float = 0.5,
        normal_ratio: float = 1.0,
        draw_seed: int = 0,
        text_template: Path | str = TEMPLATE,
        text_sections: Sequence[str] = ("before",),
        metadata: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        if DataModality(modality) is DataModality.PAIRED:
            msg = "Segmentation has images of one modality: give modality=wli or modality=nbi."
            raise ValueError(msg)
        if not 0 < abnormal_share < 1 or normal_ratio < 0:
            msg = (
                f"abnormal_share is above 0 and below 1, and normal_ratio at least 0, got {abnormal_share} and "
                f"{normal_ratio}."
            )
            raise ValueError(msg)
        super().__init__(root=root, modality=modality, **options)
        self.abnormal_share = abnormal_share
        self.normal_ratio = normal_ratio
        self.draw_seed = draw_seed
        self.text = PseudoText(text_template, text_sections)
        self.metadata = dict(metadata or {})

    def _draw(self, split: pd.DataFrame) -> pd.DataFrame:
        abnormal = split[split.label != "normal"]
        unmasked = abnormal[abnormal["mask"] == ""]
        if len(unmasked) or not len(abnormal):
            what = f"{unmasked.image.iloc[0]} has no mask" if len(unmasked) else "there is no abnormal image"
            msg = f"{self.split_path}: {what}; segmentation learns from masks of all abnormal images."
            raise SplitError(msg)
        random = _generator(self.draw_seed)
        split = split.copy()
        if _labelled_in(split) == ("val",):
            share = round(self.abnormal_share * int((abnormal.split == "val").sum()))
            moved = _sample(split, "abnormal", share, random, ("val",), self.split_path)
            split.loc[split.image.isin(moved.image), "split"] = "train"
        training = split[split.split == "train"]
        normal = training.index[training.label == "normal"]
        wanted = round(self.normal_ratio * int((training.label != "normal").sum()))
        return split.drop(normal[random.permutation(len(normal))[wanted:]])

    def _dataset(
        self, split: pd.DataFrame, kind: type[EndoscopyDataset] = LabelledDataset, **options: Any
    ) -> EndoscopyDataset:
        texts = [self.text(self.metadata | {k: v for k, v in row.items() if v}) for row in split.to_dict("records")]
        return super()._dataset(split, kind, texts=texts, **options)


def _generator(seed: int | None) -> np.random.Generator:
    return np.random.default_rng(torch.initial_seed() % 2**31 if seed is None else seed)


def _labelled_in(split: pd.DataFrame) -> tuple[str, ...]:
    """Where the abnormal images are that may be trained on."""
    return ("train",) if (split[split.split == "train"].label != "normal").any() else ("val",)


def _sample(
    split: pd.DataFrame, label: str, count: int, random: np.random.Generator, splits: Sequence[str], path: Path
) -> pd.DataFrame:
    """So many rows of a label, by chance, that count as training images."""
    rows = split[split.split.isin(splits) & ((split.label == "normal") == (label == "normal"))].sort_values("image")
    if not 0 < count <= len(rows):
        msg = f"{path} has {len(rows)} {label} images in {' and '.join(splits)}, but {count} are to be drawn."
        raise SplitError(msg)
    return rows.iloc[random.permutation(len(rows))[:count]].assign(split="train")
