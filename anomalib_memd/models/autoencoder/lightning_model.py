"""Autoencoder of images, of seven kinds."""

from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import Adam

from anomalib_memd.models.trained import TrainedMixin

from .kinds import KINDS, AutoEncoderModel

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation that bring images to [-1, 1]."""


class AutoEncoder(TrainedMixin, AnomalibModule):
    """An autoencoder of small images.

    Batches of 64 images were published, for 250 epochs: 3100 steps of 800 images.

    Args:
        kind: ``plain``, ``ssim``, ``perceptual``, ``variational``, ``constrained``, ``memory`` or ``denoising``, see
            :data:`KINDS`.
        image_size: Height and width that the network sees, in pixels; 128 of the denoising one were published.
        backbone: Name of the timm model of the perceptual distance.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.

    Raises:
        ValueError: If there is no such kind.
    """

    mean = HALF
    std = HALF

    def __init__(
        self,
        kind: str = "plain",
        image_size: tuple[int, int] = (64, 64),
        backbone: str = "resnet18.tv_in1k",
        backbone_weights: str | Path | None = None,
        steps: int = 3100,
        lr: float = 1e-3,
        **components: Any,
    ) -> None:
        if kind not in KINDS:
            msg = f"There is no autoencoder of kind '{kind}'; there are {', '.join(KINDS)}."
            raise ValueError(msg)
        super().__init__(image_size, steps, **components)
        self.model: AutoEncoderModel = KINDS[kind](image_size, backbone, backbone_weights)
        self.lr = lr

    def configure_optimizers(self) -> Adam:
        """Adam of all that learns."""
        return Adam([p for p in self.model.parameters() if p.requires_grad], lr=self.lr)
