"""Metrics of each detector of MEMD, and the gap between the modalities."""

from typing import Any

import torch
from anomalib.metrics import AUROC, AnomalibMetric, Evaluator, F1Score
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import SumMetric
from torchmetrics.classification import BinaryAveragePrecision, BinarySpecificity

from anomalib_memd.modality import Branch, Modality

from .pixels import pixel_areas
from .post_processor import branch_views


class AveragePrecision(AnomalibMetric, BinaryAveragePrecision):  # type: ignore[misc]
    """Area under the precision-recall curve by the step rule, as scikit-learn's ``average_precision_score``."""


class _OneMinusSpecificity(BinarySpecificity):
    def compute(self) -> torch.Tensor:
        return 1 - super().compute()


class FalsePositiveRate(AnomalibMetric, _OneMinusSpecificity):  # type: ignore[misc]
    """Share of the normal images that are called abnormal."""


class MultimodalEvaluator(Evaluator):
    """Image and, with masks, pixel metrics of both students and the teacher, under names such as ``nbi_image_AUROC``.

    ``modality_gap`` is the absolute difference of the students' image AUROC. Validation measures the image
    AUROC alone. Where all images are normal, the false positive rate is all that can be measured.

    Args:
        modality: Modality of the images where a batch is no pair.
        compute_on_cpu: Whether metrics are kept on the CPU.
    """

    def __init__(self, modality: Modality | str = Modality.WLI, compute_on_cpu: bool = True) -> None:
        val_metrics = [_image_auroc(f"{branch.value}_") for branch in Branch]
        test_metrics = [metric for branch in Branch for metric in _all_metrics(f"{branch.value}_")]
        # They stand last, so that checkpoints made before they were measured still fit.
        test_metrics += [_false_positive_rate(f"{branch.value}_") for branch in Branch]
        super().__init__(val_metrics=val_metrics, test_metrics=test_metrics, compute_on_cpu=compute_on_cpu)
        self.modality: Modality | None = Modality(modality)
        self.abnormal = SumMetric()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the metrics of every detector that has predictions."""
        del trainer, pl_module, outputs, batch_idx, dataloader_idx
        self._update(self.val_metrics, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the metrics of every detector that has predictions."""
        del trainer, pl_module, outputs, batch_idx, dataloader_idx
        self._update(self.test_metrics, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics that were updated."""
        del trainer
        self._log(self.val_metrics, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics that were updated, and the gap between the modalities."""
        del trainer
        self._log(self.test_metrics, pl_module)

    def _update(self, metrics: torch.nn.ModuleList, batch: Any) -> None:
        if batch.gt_label is not None:
            self.abnormal.update(batch.gt_label.sum())
        for branch, view in branch_views(batch, self.modality):
            for metric in metrics:
                if metric.name.startswith("" if branch is None else f"{branch.value}_"):
                    metric.update(view)

    def _log(self, metrics: torch.nn.ModuleList, pl_module: LightningModule) -> None:
        # Areas under curves of one class alone would be called 0.
        one_class = self.abnormal.update_called and not self.abnormal.compute()
        measured = [m for m in metrics if m.update_called and (not one_class or isinstance(m, FalsePositiveRate))]
        values: dict[str, torch.Tensor] = {metric.name: metric.compute() for metric in measured}
        for metric in (*metrics, self.abnormal):
            metric.reset()
        image_aurocs = [values.get(f"{modality.value}_image_AUROC") for modality in Modality]
        if all(value is not None for value in image_aurocs):
            values["modality_gap"] = (image_aurocs[0] - image_aurocs[1]).abs()
        # The metrics have gathered from all processes already, so the values agree and need no reduction.
        pl_module.log_dict({name: value.float() for name, value in values.items() if value is not None})


class SingleEvaluator(MultimodalEvaluator):
    """The same metrics for a model of one detector, under names such as ``image_AUROC``."""

    def __init__(self, compute_on_cpu: bool = True) -> None:
        test_metrics = [*_all_metrics(), _false_positive_rate()]
        Evaluator.__init__(self, [_image_auroc()], test_metrics, compute_on_cpu=compute_on_cpu)
        self.modality = None
        self.abnormal = SumMetric()


def _image_auroc(prefix: str = "") -> AnomalibMetric:
    return AUROC(fields=["pred_score", "gt_label"], prefix=f"{prefix}image_")


def _false_positive_rate(prefix: str = "") -> AnomalibMetric:
    return FalsePositiveRate(fields=["pred_label", "gt_label"], prefix=f"{prefix}image_")


def _all_metrics(prefix: str = "") -> list[AnomalibMetric]:
    image = f"{prefix}image_"
    return [
        _image_auroc(prefix),
        AveragePrecision(fields=["pred_score", "gt_label"], prefix=image),
        F1Score(fields=["pred_label", "gt_label"], prefix=image),
        *pixel_areas(prefix),
    ]
