"""Encoder-decoder contrast."""

from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import AdamW

from anomalib_memd.models.trained import TrainedMixin

from .torch_model import EDCModel


class EDC(TrainedMixin, AnomalibModule):
    """Encoder-decoder contrast (Guo et al., IEEE TMI 2024), see :class:`EDCModel`.

    Batches of 32 images were published, for 500 to 6000 steps.

    Args:
        backbone: Name of a timm ResNet.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the network sees, in pixels.
        reduction: How the map becomes the score of an image: ``max``, or ``mean`` where disease fills the image.
        pretrained_deepest: Whether ``layer4`` starts from pretrained weights, as published; without, it starts at
            random and learns at the rate of the decoder, for weights that end at ``layer3``.
        steps: Number of batches.
        lr: Learning rate of the decoder.
        encoder_lr: Learning rate of the encoder.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    gradient_clip = 1.0

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (256, 256),
        reduction: str = "max",
        pretrained_deepest: bool = True,
        steps: int = 2000,
        lr: float = 2e-4,
        encoder_lr: float = 1e-5,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: EDCModel = EDCModel(backbone, backbone_weights, reduction, pretrained_deepest)
        self.lr = lr
        self.encoder_lr = encoder_lr

    def configure_optimizers(self) -> AdamW:
        """AdamW, with a slower rate for what is pretrained."""
        groups = [
            {"params": self.model.encoder.parameters(), "lr": self.encoder_lr},
            {"params": [*self.model.decoder.parameters(), *self.model.deepest.parameters()], "lr": self.lr},
        ]
        return AdamW(groups, weight_decay=1e-4)
