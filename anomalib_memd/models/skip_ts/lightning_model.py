"""Reverse distillation with skip connections."""

from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import Adam

from anomalib_memd.models.trained import TrainedMixin

from .torch_model import SkipTSModel


class SkipTS(TrainedMixin, AnomalibModule):
    """Student and teacher with skip connections (Liu et al., ISCAS 2023), see :class:`SkipTSModel`.

    Args:
        backbone: Name of a timm ResNet, the teacher.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the networks see, in pixels.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2.tv_in1k",
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (256, 256),
        steps: int = 5000,
        lr: float = 1e-3,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: SkipTSModel = SkipTSModel(backbone, backbone_weights)
        self.lr = lr

    def configure_optimizers(self) -> Adam:
        """Adam of bottleneck and decoder."""
        parts = self.model.bottleneck, self.model.decoder
        return Adam([p for part in parts for p in part.parameters()], lr=self.lr)
