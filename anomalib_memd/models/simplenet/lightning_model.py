"""SimpleNet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import Adam

from anomalib_memd.models.trained import TrainedMixin

from .torch_model import SimpleNetModel


class SimpleNet(TrainedMixin, AnomalibModule):
    """The original SimpleNet (Liu et al., CVPR 2023), see :class:`SimpleNetModel`; anomalib has its successor.

    Batches of 8 images were published, for 40 epochs: 4000 steps of 800 images.

    Args:
        backbone: Name of a timm model.
        layers: Its layers, the finest first.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the network sees, in pixels.
        noise: Deviation of the noise on adapted features.
        steps: Number of batches.
        lr: Learning rate of the discriminator.
        adaptor_lr: Learning rate of the adaptor.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2.tv_in1k",
        layers: Sequence[str] = ("layer2", "layer3"),
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (256, 256),
        noise: float = 0.015,
        steps: int = 4000,
        lr: float = 2e-4,
        adaptor_lr: float = 1e-4,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: SimpleNetModel = SimpleNetModel(backbone, layers, backbone_weights, noise)
        self.lr = lr
        self.adaptor_lr = adaptor_lr

    def configure_optimizers(self) -> Adam:
        """Adam, with weight decay on the discriminator alone."""
        return Adam(
            [
                {"params": self.model.adaptor.parameters(), "lr": self.adaptor_lr},
                {"params": self.model.discriminator.parameters(), "lr": self.lr, "weight_decay": 1e-5},
            ]
        )
