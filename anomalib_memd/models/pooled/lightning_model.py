"""Plain detectors on globally pooled backbone features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule, MemoryBankMixin
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.evaluation import EndoscopyMixin

from .torch_model import Distance, PooledFeaturesModel


class PooledMixin(EndoscopyMixin, MemoryBankMixin):
    """One pass over the training images, after which ``fit`` solves for what is left."""

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One pass over the training images, on one device."""
        return {"max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

    @property
    def learning_type(self) -> LearningType:
        """What anomalib calls all that is trained."""
        return LearningType.ONE_CLASS

    @staticmethod
    def configure_optimizers() -> None:
        """Nothing is optimised."""


class PooledFeatures(PooledMixin, AnomalibModule):
    """Nearest neighbours or Mahalanobis distance on globally pooled features of a frozen backbone.

    Args:
        backbone: Name of a timm model.
        layers: Its layers whose features are pooled.
        pre_trained: Whether the backbone has ImageNet weights.
        backbone_weights: File with its weights, or ``package``, see :func:`.build_backbone`.
        distance: Which distance.
        neighbours: Number of nearest neighbours.
        pre_processor: Pre-processor, or whether to have one.
        post_processor: Post-processor, or whether to have one.
        evaluator: Evaluator, or whether to have one.
        visualizer: Visualizer, or whether to have one.

    Raises:
        BackboneError: If the backbone cannot be built or its weights do not fit.
    """

    model: PooledFeaturesModel

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        layers: Sequence[str] = ("layer2", "layer3"),
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        distance: Distance | str = Distance.NEIGHBOURS,
        neighbours: int = 2,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        super().__init__(
            pre_processor=pre_processor, post_processor=post_processor, evaluator=evaluator, visualizer=visualizer
        )
        extractor = build_backbone(backbone, layers, pre_trained, backbone_weights)
        self.model = PooledFeaturesModel(extractor, distance, neighbours)
        self._features: list[torch.Tensor] = []

    @classmethod
    def checkpoint_safe_globals(cls) -> Sequence[Any]:
        """The enumerations among the options."""
        return (Distance,)

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Pool the features of a batch."""
        del args, kwargs
        self._features.append(self.model.pool(batch.image))
        return torch.tensor(0.0, requires_grad=True, device=self.device)

    def fit(self) -> None:
        """Take in the features of all batches."""
        self.model.fit(self._features)
        self._features = []
