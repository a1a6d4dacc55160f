"""CMP."""

from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import Adam

from anomalib_memd.models.trained import VectorMixin

from .torch_model import CMPModel


class CMP(VectorMixin, AnomalibModule):
    """Cropping, mixing and pasting, and masked predicting (Li et al., IEEE TMI 2024), see :class:`CMPModel`.

    Args:
        backbone: Name of a timm model.
        layer: Its layer whose maps are predicted.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the network sees, in pixels.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    def __init__(
        self,
        backbone: str = "resnet18.tv_in1k",
        layer: str = "layer3",
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (256, 256),
        steps: int = 2000,
        lr: float = 1e-4,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: CMPModel = CMPModel(backbone, layer, backbone_weights)
        self.lr = lr

    def configure_optimizers(self) -> Adam:
        """Adam of all."""
        return Adam(self.model.parameters(), lr=self.lr)
