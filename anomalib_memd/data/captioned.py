"""Images with a sentence or two about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from anomalib.data import ImageBatch, ImageItem
from anomalib.data.dataclasses.generic import FieldDescriptor

from .dataset import EndoscopyDataset


@dataclass
class _TextField:
    """What a captioned image has besides the fields of the image."""

    text: FieldDescriptor[str | list[str] | None] = FieldDescriptor()


@dataclass
class CaptionedImageItem(_TextField, ImageItem):
    """An image and a text about it."""


@dataclass
class CaptionedImageBatch(_TextField, ImageBatch):
    """A batch of :class:`CaptionedImageItem`; ``text`` is a list of ``B`` strings."""

    item_class: ClassVar[type[CaptionedImageItem]] = CaptionedImageItem


class LabelledDataset(EndoscopyDataset):
    """Images to learn from by their labels, and by their masks as far as there are some.

    Args:
        split: See :class:`.EndoscopyDataset`.
        root: Likewise.
        *arguments: Likewise.
        texts: A text for each row of the split, for images of one modality; ``None`` for none.
        **options: Likewise.
    """

    some_masks = True

    def __init__(
        self, split: pd.DataFrame, root: Path, *arguments: Any, texts: Sequence[str] | None = None, **options: Any
    ) -> None:
        super().__init__(split, root, *arguments, **options)
        self.texts: list[str] | None = None
        if texts is not None:  # Anomalib has sorted the rows.
            texts_of = dict(zip((str(root / name) for name in split["image"]), texts, strict=True))
            self.texts = [texts_of[path] for path in self.samples.image_path]

    def __getitem__(self, index: int) -> ImageItem:
        """Read one item, see :class:`.EndoscopyDataset`; with a text it is a :class:`CaptionedImageItem`."""
        item = super().__getitem__(index)
        if self.texts is None:
            return item
        return CaptionedImageItem(**vars(item), text=self.texts[index])

    @property
    def collate_fn(self) -> Callable:
        """Collate items of this dataset into a batch."""
        return super().collate_fn if self.texts is None else CaptionedImageBatch.collate
