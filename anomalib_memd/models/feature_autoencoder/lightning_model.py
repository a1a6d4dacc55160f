"""Feature autoencoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from torch.optim import Adam

from anomalib_memd.models.trained import TrainedMixin

from .torch_model import FeatureAutoEncoderModel, FeatureLoss


class FeatureAutoEncoder(TrainedMixin, AnomalibModule):
    """Structural feature autoencoder (Meissen et al., BrainLes 2022), see :class:`FeatureAutoEncoderModel`.

    Batches of 32 images were published.

    Args:
        backbone: Name of a timm model.
        layers: Its layers whose features are reconstructed.
        backbone_weights: File with its weights, see :func:`~anomalib_memd.components.backbones.build_backbone`.
        image_size: Height and width that the network sees, in pixels.
        distance: Distance of features from their reconstruction, ``ssim`` or ``mse``.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    def __init__(
        self,
        backbone: str = "resnet18.tv_in1k",
        layers: Sequence[str] = ("act1", "layer1", "layer2"),
        backbone_weights: str | Path | None = None,
        image_size: tuple[int, int] = (128, 128),
        distance: FeatureLoss | str = FeatureLoss.SSIM,
        steps: int = 10_000,
        lr: float = 2e-4,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: FeatureAutoEncoderModel = FeatureAutoEncoderModel(backbone, layers, backbone_weights, distance)
        self.lr = lr

    @classmethod
    def checkpoint_safe_globals(cls) -> Sequence[Any]:
        """The enumeration among the options."""
        return (FeatureLoss,)

    def configure_optimizers(self) -> Adam:
        """Adam of the autoencoder."""
        return Adam(self.model.autoencoder.parameters(), lr=self.lr)
