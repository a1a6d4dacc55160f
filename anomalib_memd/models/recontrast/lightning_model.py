"""Contrastive reconstruction."""

from pathlib import Path
from typing import Any

from anomalib.data import Batch
from anomalib.models.components import AnomalibModule
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.optim import AdamW

from anomalib_memd.models.trained import TrainedMixin

from .torch_model import ReContrastModel

EASIEST, HARDEST = -3.0, 1.0
"""Deviations above the mean that make a location hard, at the start and after the first tenth of the steps."""


class ReContrast(TrainedMixin, AnomalibModule):
    """Contrastive reconstruction (Guo et al., NeurIPS 2023), see :class:`ReContrastModel`.

    Batches of 32 images were published.

    Args:
        backbone: Name of a timm ResNet.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the network sees, in pixels.
        reduction: How the map becomes the score of an image: ``max``, or ``mean`` where disease fills the image.
        steps: Number of batches.
        lr: Learning rate of bottleneck and decoder.
        encoder_lr: Learning rate of the encoder.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2.tv_in1k",
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (256, 256),
        reduction: str = "max",
        steps: int = 1000,
        lr: float = 2e-3,
        encoder_lr: float = 1e-5,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: ReContrastModel = ReContrastModel(backbone, backbone_weights, reduction)
        self.lr = lr
        self.encoder_lr = encoder_lr

    def configure_optimizers(self) -> AdamW:
        """AdamW, with a slower rate for what is pretrained."""
        made = [*self.model.bottleneck.parameters(), *self.model.decoder.parameters(), *self.model.outputs.parameters()]
        groups = [{"params": self.model.encoder.parameters(), "lr": self.encoder_lr}, {"params": made, "lr": self.lr}]
        return AdamW(groups, betas=(0.9, 0.999), weight_decay=1e-5, eps=1e-8, amsgrad=True)

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Loss of a batch; ever more locations are left out as easy, until a tenth of the steps is over."""
        progress = min(1.0, self.trainer.global_step / (0.1 * self.steps))
        self.model.factor = EASIEST + (HARDEST - EASIEST) * progress
        return super().training_step(batch, *args, **kwargs)
