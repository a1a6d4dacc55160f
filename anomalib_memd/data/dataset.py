"""Datasets of endoscopic images in one modality, in registered pairs, or in unpaired sets."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset, ImageBatch, ImageItem
from torch import nn
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Image, Mask

from .masks import read_mask
from .paired import PairedImageBatch, PairedImageItem
from .reading import ImageReadError, find_partner, read_image


class DataModality(StrEnum):
    """What an item of a dataset holds."""

    PAIRED = "paired"
    WLI = "wli"
    NBI = "nbi"


class EndoscopyDataset(AnomalibDataset):
    """White light images with narrow band partners, which are read or translated.

    Args:
        split: Rows of a split, see :func:`~anomalib_memd.data.split.read_split`.
        root: Folder to which the files of the split are relative.
        modality: Pairs, or one modality alone as plain items that every anomalib model understands.
        nbi_root: Folder parallel to ``root`` with the narrow band partners.
        translator: Makes the narrow band image from the white light image if there is no ``nbi_root``.
        augmentations: Transform of image, partner and mask, with the same geometry for all.

    Raises:
        FileNotFoundError: If a narrow band partner is missing.
        ValueError: If narrow band images are asked for without ``nbi_root`` and without ``translator``.
    """

    some_masks = False
    """Whether abnormal images without a mask have one of zeros beside images with one; else masks are left out."""

    def __init__(
        self,
        split: pd.DataFrame,
        root: Path,
        modality: DataModality | str = DataModality.PAIRED,
        nbi_root: Path | None = None,
        translator: nn.Module | None = None,
        augmentations: Transform | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        self.modality = DataModality(modality)
        self.translator = translator
        self.paths_only = False
        """Whether items are blank but for their paths: set while the features of all of them are kept."""
        samples = pd.DataFrame(
            {
                "image_path": [str(root / name) for name in split["image"]],
                "split": split["split"].to_numpy(),
                "class_name": split["class"].to_numpy(),
                "label": split["label"].to_numpy(),
                "label_index": (split["label"] != "normal").astype(int).to_numpy(),
                "mask_path": [str(root / name) if name else "" for name in split["mask"]],
                "nbi_path": self._partners(split, root, nbi_root),
            }
        )
        masked = samples.loc[samples.label_index == 1, "mask_path"] != ""
        has_masks = len(masked) > 0 and bool(masked.any() if self.some_masks else masked.all())
        samples.attrs["task"] = TaskType.SEGMENTATION if has_masks else TaskType.CLASSIFICATION
        self.samples = samples

    def _partners(self, split: pd.DataFrame, root: Path, nbi_root: Path | None) -> list[str]:
        if self.modality is DataModality.WLI:
            return [""] * len(split)
        if nbi_root is None:
            if self.translator is None:
                msg = f"{root}: narrow band images need a folder (nbi_root) or a translator; or set modality=wli."
                raise ValueError(msg)
            return [""] * len(split)
        partners = [find_partner(root / name, root, nbi_root) for name in split["image"]]
        for name, partner in zip(split["image"], partners, strict=True):
            if partner is None:
                msg = f"No NBI partner for {name} under {nbi_root}; add it, leave out nbi_root, or set modality=wli."
                raise FileNotFoundError(msg)
        return [str(partner) for partner in partners]

    def __getitem__(self, index: int) -> ImageItem:
        """Read one item.

        Args:
            index: Row of ``samples``.

        Returns:
            :class:`PairedImageItem` for pairs, otherwise :class:`~anomalib.data.ImageItem`; images are float
            in [0, 1].

        Raises:
            ImageReadError: If a file cannot be used.
            ValueError: If the sizes of image, partner and mask differ.
        """
        row = self.samples.iloc[index]
        if self.paths_only:
            return _blank(row.image_path, registered=True)
        wli = None if self.modality is DataModality.NBI and row.nbi_path else read_image(row.image_path)
        nbi = None if self.modality is DataModality.WLI else self._narrow_band(row.nbi_path, wli)
        mask = self._mask(row, wli if wli is not None else nbi)
        images = {
            DataModality.PAIRED: [wli, nbi],
            DataModality.WLI: [wli],
            DataModality.NBI: [nbi],
        }[self.modality]
        images, mask = _augment(self.augmentations, images, mask)
        common = {
            "gt_label": torch.tensor(row.label_index),
            "gt_mask": mask,
            "image_path": row.nbi_path if self.modality is DataModality.NBI and row.nbi_path else row.image_path,
            "mask_path": row.mask_path or None,
        }
        if self.modality is not DataModality.PAIRED:
            return ImageItem(image=images[0], **common)
        if images[0].shape != images[1].shape:
            msg = (
                f"{row.image_path} and its NBI partner {row.nbi_path} differ in size "
                f"({tuple(images[0].shape[-2:])} and {tuple(images[1].shape[-2:])}); a pair must be registered."
            )
            raise ValueError(msg)
        return PairedImageItem(image=images[0], nbi_image=images[1], registered=torch.tensor(True), **common)

    def _narrow_band(self, path: str, wli: Image | None) -> Image:
        if path:
            nbi = read_image(path)
            if wli is not None and nbi.shape != wli.shape:
                msg = f"{path} is of size {tuple(nbi.shape[-2:])}, its WLI partner of {tuple(wli.shape[-2:])}."
                raise ImageReadError(msg)
            return nbi
        with torch.inference_mode(False), torch.no_grad():
            return Image(self.translator(wli.as_subclass(torch.Tensor)))  # type: ignore[misc, union-attr]

    def _mask(self, row: pd.Series, image: Image) -> Mask | None:
        if self.task is not TaskType.SEGMENTATION:
            return None
        if not row.mask_path:
            return Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))
        mask = read_mask(row.mask_path)
        if mask.shape != image.shape[-2:]:
            msg = f"{row.mask_path} is of size {tuple(mask.shape)}, its image of {tuple(image.shape[-2:])}."
            raise ImageReadError(msg)
        if bool(mask.any()) != bool(row.label_index):
            what = "abnormal, but its mask is empty" if row.label_index else "normal, but its mask has an abnormal part"
            msg = f"{row.image_path} is {what}: {row.mask_path}. Mend the mask, or the label in the split."
            raise ImageReadError(msg)
        return mask

    @property
    def translation(self) -> nn.Module | None:
        """What makes the narrow band image of an item of its white light image; ``None`` if nothing does."""
        return None if (self.samples.nbi_path != "").any() else self.translator

    def item_paths(self) -> list[str]:
        """The ``image_path`` of each item, in order."""
        return self.samples.image_path.tolist()

    def source_files(self) -> list[str]:
        """Every image file that items are made of."""
        return [path for column in ("image_path", "nbi_path") for path in self.samples[column] if path]

    @property
    def collate_fn(self) -> Callable:
        """Collate items of this dataset into a batch."""
        return PairedImageBatch.collate if self.modality is DataModality.PAIRED else ImageBatch.collate


class UnpairedDataset(EndoscopyDataset):
    """Normal white light images beside a set of normal narrow band images of other tissue.

    The shorter set is repeated, in an order of its own, until the longer one is through.

    Args:
        split: Rows of normal white light images.
        root: Folder to which they are relative.
        nbi_paths: Narrow band images, of any number.
        augmentations: Transform, drawn anew for each of the two images.
    """

    def __init__(
        self,
        split: pd.DataFrame,
        root: Path,
        nbi_paths: Sequence[Path],
        augmentations: Transform | None = None,
    ) -> None:
        super().__init__(split, root, DataModality.WLI, augmentations=augmentations)
        self.nbi_paths = [str(path) for path in nbi_paths]
        self.nbi_order = torch.randperm(len(self.nbi_paths), generator=torch.Generator().manual_seed(0)).tolist()

    def __len__(self) -> int:
        """Number of items: that of the longer set."""
        return max(len(self.samples), len(self.nbi_paths))

    def __getitem__(self, index: int) -> PairedImageItem:
        """Read one white light and one narrow band image.

        Args:
            index: Position in the longer set.

        Returns:
            Item with ``registered`` false, whose ``image_path`` names both files, ``wli|nbi``.

        Raises:
            IndexError: If there is no such position.
        """
        if not 0 <= index < len(self):
            msg = f"There are {len(self)} items, but item {index} was asked for."
            raise IndexError(msg)
        wli_path, nbi_path = self._paths(index)
        if self.paths_only:
            return _blank(f"{wli_path}|{nbi_path}", registered=False)
        (wli,), _ = _augment(self.augmentations, [read_image(wli_path)], None)
        (nbi,), _ = _augment(self.augmentations, [read_image(nbi_path)], None)
        return PairedImageItem(
            image=wli,
            nbi_image=nbi,
            registered=torch.tensor(False),
            gt_label=torch.tensor(0),
            image_path=f"{wli_path}|{nbi_path}",
        )

    def _paths(self, index: int) -> tuple[str, str]:
        nbi_path = self.nbi_paths[self.nbi_order[index % len(self.nbi_paths)]]
        return self.samples.image_path.iloc[index % len(self.samples)], nbi_path

    def item_paths(self) -> list[str]:
        """The ``image_path`` of each item, in order."""
        return ["|".join(self._paths(index)) for index in range(len(self))]

    def source_files(self) -> list[str]:
        """Every image file that items are made of."""
        return [*self.samples.image_path, *self.nbi_paths]

    @property
    def collate_fn(self) -> Callable:
        """Collate items of this dataset into a batch."""
        return PairedImageBatch.collate


def _blank(image_path: str, registered: bool) -> PairedImageItem:
    """A normal item without its images."""
    pixel = Image(torch.zeros(3, 1, 1))
    return PairedImageItem(
        image=pixel,
        nbi_image=pixel,
        registered=torch.tensor(registered),
        gt_label=torch.tensor(0),
        image_path=image_path,
    )


def _augment(
    transform: Transform | None,
    images: list[Image],
    mask: Mask | None,
) -> tuple[list[Image], Mask | None]:
    """Apply one draw of a transform to all images and the mask, so that they stay registered."""
    if transform is None:
        return images, mask
    if mask is None:
        transformed = transform(*images)
        return list(transformed) if len(images) > 1 else [transformed], None
    *transformed, mask = transform(*images, mask)
    return list(transformed), mask
