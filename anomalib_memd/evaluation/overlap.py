"""How well masks overlap: the metrics of networks that segment."""

from typing import Any

import torch
from anomalib.metrics import AnomalibMetric, F1Score
from torchmetrics.classification import BinaryPrecision, BinaryRecall
from torchmetrics.segmentation import DiceScore, MeanIoU

from .evaluator import SingleEvaluator


class _OfLesions:
    """Takes in images with a lesion alone: where there is none, an overlap is nothing to measure."""

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        kept = target.flatten(1).any(1)
        if kept.any():
            super().update(preds[kept].long(), target[kept].long())  # type: ignore[misc]


class _LesionDice(_OfLesions, DiceScore):
    pass


class _LesionIoU(_OfLesions, MeanIoU):
    pass


class Dice(AnomalibMetric, _LesionDice):  # type: ignore[misc]
    """Dice coefficient of masks ``(B, H, W)``, the mean over images with a lesion."""


class IoU(AnomalibMetric, _LesionIoU):  # type: ignore[misc]
    """Intersection over union of masks ``(B, H, W)``, the mean over images with a lesion."""


class Precision(AnomalibMetric, BinaryPrecision):  # type: ignore[misc]
    """Share of the pixels that were called abnormal which are so, over all images."""


class Recall(AnomalibMetric, BinaryRecall):  # type: ignore[misc]
    """Share of the abnormal pixels that were called so, over all images."""


class SegmentationEvaluator(SingleEvaluator):
    """What :class:`SingleEvaluator` measures, and the overlap of masks.

    ``pixel_Dice`` and ``pixel_IoU`` are means over images with a lesion; ``pixel_Precision``, ``pixel_Recall`` and
    ``pixel_F1Score`` are of all pixels together.

    Args:
        compute_on_cpu: Whether metrics are kept on the CPU.
    """

    def __init__(self, compute_on_cpu: bool = True) -> None:
        super().__init__(compute_on_cpu)
        self.test_metrics.extend(overlap_metrics())


def overlap_metrics() -> list[AnomalibMetric]:
    """Dice coefficient, intersection over union, precision, recall and F1 score of ``pred_mask`` and ``gt_mask``."""
    facts: dict[str, Any] = {"fields": ["pred_mask", "gt_mask"], "prefix": "pixel_", "strict": False}
    overlap = {"num_classes": 2, "include_background": False, "input_format": "index"}
    return [Dice(**facts, **overlap), IoU(**facts, **overlap), *(k(**facts) for k in (Precision, Recall, F1Score))]
