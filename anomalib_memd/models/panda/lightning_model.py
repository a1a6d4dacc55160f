"""Adapted features and mean-shifted contrast."""

from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import SGD

from anomalib_memd.models.trained import VectorMixin

from .torch_model import MeanShiftedModel, PANDAModel


class _CentredMixin(VectorMixin):
    """Lets the centre take in the training images before they are trained on."""

    model: PANDAModel
    lr: float

    def on_train_start(self) -> None:
        """Find the centre, unless a checkpoint has brought it."""
        if not self.model.centre.any():
            self.model.fit_centre(self.training_vectors())

    def configure_optimizers(self) -> SGD:
        """SGD of what learns."""
        learning = [p for p in self.model.parameters() if p.requires_grad]
        return SGD(learning, lr=self.lr, momentum=0.9, weight_decay=5e-5)


class PANDA(_CentredMixin, AnomalibModule):
    """Features drawn to their mean (Reiss et al., CVPR 2021), see :class:`PANDAModel`.

    Batches of 32 images were published, for 15 epochs: 375 steps of 800 images.

    Args:
        backbone: Name of a timm model.
        layer: Its deepest layer.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the network sees, in pixels.
        neighbours: Number of neighbours.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    gradient_clip = 1e-3

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        layer: str = "layer4",
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (224, 224),
        neighbours: int = 2,
        steps: int = 375,
        lr: float = 1e-2,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: PANDAModel = PANDAModel(backbone, layer, backbone_weights, neighbours=neighbours)
        self.lr = lr


class MeanShifted(_CentredMixin, AnomalibModule):
    """Mean-shifted contrast (Reiss and Hoshen, AAAI 2023), see :class:`MeanShiftedModel`.

    Batches of 64 images were published, for 20 epochs: 250 steps of 800 images.

    Args:
        backbone: Name of a timm model.
        layer: Its deepest layer.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the network sees, in pixels.
        neighbours: Number of neighbours.
        temperature: Temperature of the contrast.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        layer: str = "layer4",
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (224, 224),
        neighbours: int = 2,
        temperature: float = 0.25,
        steps: int = 250,
        lr: float = 1e-5,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: MeanShiftedModel = MeanShiftedModel(
            backbone, layer, backbone_weights, neighbours=neighbours, temperature=temperature
        )
        self.lr = lr
