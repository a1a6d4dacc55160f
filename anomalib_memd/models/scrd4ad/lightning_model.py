"""Scale-aware contrastive reverse distillation."""

from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import Adam

from anomalib_memd.models.trained import TrainedMixin

from .torch_model import SCRD4ADModel


class SCRD4AD(TrainedMixin, AnomalibModule):
    """Scale-aware contrastive reverse distillation (Li et al., ICLR 2025), see :class:`SCRD4ADModel`.

    Batches of 16 images were published.

    Args:
        backbone: Name of a timm ResNet.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the network sees, in pixels.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2.tv_in1k",
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (256, 256),
        steps: int = 40_000,
        lr: float = 1e-3,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: SCRD4ADModel = SCRD4ADModel(backbone, backbone_weights)
        self.lr = lr

    def configure_optimizers(self) -> Adam:
        """Adam of all that is not the teacher."""
        parts = self.model.bottleneck, self.model.decoder, self.model.scale
        return Adam([p for part in parts for p in part.parameters()], lr=self.lr, betas=(0.5, 0.999))
