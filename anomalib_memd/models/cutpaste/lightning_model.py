"""CutPaste."""

from pathlib import Path
from typing import Any

from anomalib.data import Batch
from anomalib.models.components import AnomalibModule
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.optim import SGD

from anomalib_memd.models.trained import VectorMixin

from .torch_model import CutPasteModel


class CutPaste(VectorMixin, AnomalibModule):
    """CutPaste of three classes (Li et al., CVPR 2021), and its anatomical variant, see :class:`CutPasteModel`.

    Batches of 64 images were published.

    Args:
        backbone: Name of a timm model.
        layer: Its deepest layer.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the network sees, in pixels.
        anatomical: Whether patches lie on tissue alone.
        steps: Number of batches.
        frozen_steps: Number of batches before the backbone learns, too.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    def __init__(
        self,
        backbone: str = "resnet18.tv_in1k",
        layer: str = "layer4",
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (256, 256),
        anatomical: bool = False,
        steps: int = 256,
        frozen_steps: int = 20,
        lr: float = 0.03,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: CutPasteModel = CutPasteModel(backbone, layer, backbone_weights, anatomical)
        self.frozen_steps = frozen_steps
        self.lr = lr

    def configure_optimizers(self) -> SGD:
        """SGD of all."""
        return SGD(self.model.parameters(), lr=self.lr, momentum=0.9, weight_decay=3e-5)

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Loss of a batch; the head learns first."""
        self.model.backbone.requires_grad_(self.trainer.global_step >= self.frozen_steps)
        return super().training_step(batch, *args, **kwargs)
