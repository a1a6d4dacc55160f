"""Multiresolution knowledge distillation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import Adam

from anomalib_memd.models.trained import TrainedMixin

from .torch_model import MultiresolutionKDModel


class MultiresolutionKD(TrainedMixin, AnomalibModule):
    """Multiresolution knowledge distillation (Salehi et al., CVPR 2021), see :class:`MultiresolutionKDModel`.

    Args:
        backbone: Name of a timm model, the teacher.
        layers: Its layers that are cloned.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the networks see, in pixels.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    def __init__(
        self,
        backbone: str = "vgg16.tv_in1k",
        layers: Sequence[str] = ("features.8", "features.15", "features.22", "features.29"),
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (128, 128),
        steps: int = 5000,
        lr: float = 1e-3,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: MultiresolutionKDModel = MultiresolutionKDModel(backbone, layers, backbone_weights)
        self.lr = lr

    def configure_optimizers(self) -> Adam:
        """Adam of the student."""
        return Adam(self.model.student.parameters(), lr=self.lr)
