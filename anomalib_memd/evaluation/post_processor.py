"""Thresholds and normalisation, calibrated for each detector of MEMD by itself."""

from typing import Any

from anomalib.data import Batch, InferenceBatch
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from anomalib_memd.data import PairedImageBatch
from anomalib_memd.modality import Branch, Modality


class MultimodalPostProcessor(nn.Module, Callback):
    """One of anomalib's post-processors for each student and for the teacher.

    Args:
        modality: Modality of the student whose predictions are post-processed where the batch is not a pair.
        **options: Options of :class:`~anomalib.post_processing.PostProcessor`, such as ``image_sensitivity``.
    """

    def __init__(self, modality: Modality | str = Modality.WLI, **options: Any) -> None:
        super().__init__()
        self.modality = Modality(modality)
        self.branches = nn.ModuleDict({branch.value: PostProcessor(**options) for branch in Branch})

    def branch(self, branch: Branch | Modality) -> PostProcessor:
        """The post-processor of a detector."""
        return self.branches[branch.value]  # type: ignore[return-value]

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Normalise and threshold the predictions of the student of :attr:`modality`.

        Args:
            predictions: Raw scores ``(B,)`` and maps ``(B, H, W)``.

        Returns:
            Scores and maps in [0, 1], labels and masks.
        """
        return self.branch(self.modality)(predictions)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Batch, *_: Any) -> None:
        """Take in the predictions of every detector."""
        for branch, view in branch_views(outputs, self.modality):
            self.branch(branch).on_validation_batch_end(trainer, pl_module, view)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute thresholds and ranges of every detector."""
        for branch in Branch:
            self.branch(branch).on_validation_epoch_end(trainer, pl_module)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Batch, *_: Any) -> None:
        """Normalise and threshold the predictions of every detector in place."""
        del trainer, pl_module
        for branch, view in branch_views(outputs, self.modality):
            self.branch(branch).post_process_batch(view)
            if isinstance(outputs, PairedImageBatch):
                outputs.update_branch(branch, view)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Batch, *_: Any) -> None:
        """Normalise and threshold the predictions of every detector in place."""
        self.on_test_batch_end(trainer, pl_module, outputs)

    def checkpoint_config(self) -> dict[str, Any]:
        """Plain configuration of every post-processor."""
        return {branch.value: self.branch(branch).checkpoint_config() for branch in Branch}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what :meth:`checkpoint_config` returned."""
        for branch in Branch:
            self.branch(branch).load_checkpoint_config(config.get(branch.value, {}))


class DecidedPostProcessor(PostProcessor):
    """Leaves scores, maps, labels and masks as a network itself has decided them."""

    def __init__(self) -> None:
        super().__init__(enable_normalization=False, enable_thresholding=False)

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """The predictions as they are."""
        return predictions


def detector_post_processor(processor: nn.Module | None, branch: Branch | Modality | None) -> nn.Module | None:
    """The part of a model's post-processor that belongs to a detector: all of it unless it is multimodal."""
    return processor.branch(branch) if isinstance(processor, MultimodalPostProcessor) else processor


def branch_views(batch: Batch, modality: Modality | None) -> list[tuple[Branch | None, Batch]]:
    """A batch as each detector with predictions sees it.

    Args:
        batch: Pairs, or images of one modality.
        modality: Modality of the images if they are no pairs; ``None`` if it is open.

    Returns:
        Detectors and their views; the view of a plain batch is the batch itself.
    """
    if isinstance(batch, PairedImageBatch):
        return list(batch.views())
    return [(None if modality is None else Branch(modality.value), batch)]
