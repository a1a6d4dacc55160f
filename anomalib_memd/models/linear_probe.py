"""A linear classifier on pooled backbone features: what labelled images are worth without any further idea."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from lightning.pytorch.utilities.types import STEP_OUTPUT
from sklearn.linear_model import LogisticRegression

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.statistics import varying
from anomalib_memd.models.pooled import PooledBackbone, PooledMixin


class LinearProbeModel(PooledBackbone):
    """Logistic regression on globally pooled, standardised features of a frozen backbone.

    Args:
        backbone: Feature extractor.
        strength: Inverse strength of its L2 penalty.
    """

    def __init__(self, backbone: TimmFeatureExtractor, strength: float = 1.0) -> None:
        super().__init__(backbone)
        self.strength = strength
        self.register_buffer("weight", torch.zeros(sum(backbone.out_dims)))
        self.register_buffer("bias", torch.zeros(()))
        self.weight: torch.Tensor
        self.bias: torch.Tensor

    def fit(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Solve for the weights.

        Args:
            features: Pooled features ``(N, C)``.
            labels: Whether the images are abnormal, ``(N,)``.

        Raises:
            ValueError: If all images have the same label.
        """
        if len(labels.unique()) < 2:
            msg = (
                "A linear probe learns from normal and labelled abnormal images, and has one kind alone. Take a "
                "datamodule that has both, such as --data anomalib_memd.FewShot."
            )
            raise ValueError(msg)
        mean, std = features.mean(0), varying(features.std(0, correction=0))
        regression = LogisticRegression(C=self.strength, class_weight="balanced", max_iter=1000)
        regression.fit(((features - mean) / std).double().cpu().numpy(), labels.cpu().numpy())
        self.weight.copy_(torch.from_numpy(regression.coef_[0]).to(std) / std)
        self.bias.copy_(torch.tensor(regression.intercept_[0]).to(std) - self.weight @ mean)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Chances ``(B,)`` that normalised images ``(B, 3, H, W)`` are abnormal; there is no map."""
        return InferenceBatch(pred_score=(self.pool(images) @ self.weight + self.bias).sigmoid())


class LinearProbe(PooledMixin, AnomalibModule):
    """A linear classifier on pooled features. **It learns from labelled abnormal images**, unlike one-class methods.

    Args:
        backbone: Name of a timm model.
        layers: Its layers whose features are pooled.
        backbone_weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        strength: Inverse strength of its L2 penalty.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.

    Raises:
        BackboneError: If the backbone cannot be built or its weights do not fit.
    """

    model: LinearProbeModel

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        layers: Sequence[str] = ("layer2", "layer3"),
        backbone_weights: str | Path | None = None,
        strength: float = 1.0,
        **components: Any,
    ) -> None:
        super().__init__(**components)
        self.model = LinearProbeModel(build_backbone(backbone, layers, weights=backbone_weights), strength)
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Pool the features of a batch."""
        del args, kwargs
        self._seen.append((self.model.pool(batch.image), batch.gt_label))
        return torch.tensor(0.0, requires_grad=True, device=self.device)

    def fit(self) -> None:
        """Take in the features of all batches."""
        features, labels = zip(*self._seen, strict=True)
        self.model.fit(torch.cat(features), torch.cat(labels))
        self._seen = []
