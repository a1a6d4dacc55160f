"""Items and batches of registered white light and narrow band images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from anomalib.data import ImageBatch, ImageItem, InferenceBatch
from anomalib.data.dataclasses.generic import FieldDescriptor
from torchvision.tv_tensors import Image, Mask

from anomalib_memd.modality import Branch

_PREFIX = {Branch.WLI: "", Branch.NBI: "nbi_", Branch.TEACHER: "teacher_"}


@dataclass
class _NarrowBandFields:
    """What a pair has besides the fields of its white light image."""

    nbi_image: FieldDescriptor[Image | None] = FieldDescriptor(validator_name="validate_nbi_image")
    registered: FieldDescriptor[torch.Tensor | None] = FieldDescriptor()

    nbi_pred_score: FieldDescriptor[torch.Tensor | None] = FieldDescriptor(validator_name="validate_pred_score")
    nbi_anomaly_map: FieldDescriptor[Mask | None] = FieldDescriptor(validator_name="validate_anomaly_map")
    nbi_pred_label: FieldDescriptor[torch.Tensor | None] = FieldDescriptor(validator_name="validate_pred_label")
    nbi_pred_mask: FieldDescriptor[Mask | None] = FieldDescriptor(validator_name="validate_pred_mask")

    teacher_pred_score: FieldDescriptor[torch.Tensor | None] = FieldDescriptor(validator_name="validate_pred_score")
    teacher_anomaly_map: FieldDescriptor[Mask | None] = FieldDescriptor(validator_name="validate_anomaly_map")
    teacher_pred_label: FieldDescriptor[torch.Tensor | None] = FieldDescriptor(validator_name="validate_pred_label")
    teacher_pred_mask: FieldDescriptor[Mask | None] = FieldDescriptor(validator_name="validate_pred_mask")

    def validate_nbi_image(self, image: torch.Tensor | None) -> Image | None:
        """Apply anomalib's checks of ``image``, and compare the sizes of the two."""
        if image is None:
            return None
        image = self.validate_image(image)  # type: ignore[attr-defined]
        partner = self.__dict__.get("image")
        if partner is not None and partner.shape != image.shape:
            msg = f"A pair needs images of one size, got {tuple(partner.shape)} (WLI) and {tuple(image.shape)} (NBI)."
            raise ValueError(msg)
        return image


@dataclass
class PairedImageItem(_NarrowBandFields, ImageItem):
    """A white light image, its narrow band partner and their common ground truth.

    It is an :class:`~anomalib.data.ImageItem` of the white light image: ``image`` and the standard prediction
    fields belong to it. ``nbi_*`` are the narrow band image, also of shape ``(3, H, W)``, and the NBI student's
    predictions; ``teacher_*`` the teacher's on both. ``registered`` tells whether the two show the same tissue;
    in the unpaired second stage they do not.
    """


@dataclass
class PairedImageBatch(_NarrowBandFields, ImageBatch):
    """A batch of :class:`PairedImageItem`: ``image`` and ``nbi_image`` have the shape ``(B, 3, H, W)``."""

    item_class: ClassVar[type[PairedImageItem]] = PairedImageItem

    def view(self, branch: Branch) -> ImageBatch:
        """The batch as one detector sees it.

        Args:
            branch: A student, or the teacher (whose image is the white light one).

        Returns:
            Plain image batch with that branch's predictions and the common ground truth.
        """
        prefix = _PREFIX[branch]
        return ImageBatch(
            image=self.nbi_image if branch is Branch.NBI else self.image,
            image_path=self.image_path,
            gt_label=self.gt_label,
            gt_mask=self.gt_mask,
            **{name: getattr(self, prefix + name) for name in InferenceBatch._fields},
        )

    def update_branch(self, branch: Branch, predictions: InferenceBatch | ImageBatch) -> None:
        """Take over a branch's predictions.

        Args:
            branch: Whose predictions they are.
            predictions: Scores ``(B,)``, labels ``(B,)``, maps ``(B, H, W)`` and masks ``(B, H, W)``.
        """
        for name in InferenceBatch._fields:
            setattr(self, _PREFIX[branch] + name, getattr(predictions, name))

    def views(self) -> Iterator[tuple[Branch, ImageBatch]]:
        """Every branch that has predictions, with its view."""
        for branch in Branch:
            if getattr(self, _PREFIX[branch] + "pred_score") is not None:
                yield branch, self.view(branch)
