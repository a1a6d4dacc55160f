"""PyTorch model of the plain detectors: distance of pooled backbone features from those of normal images."""

from collections.abc import Sequence
from enum import StrEnum

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import TimmFeatureExtractor
from torch import nn

from anomalib_memd.components.distance import NearestNormals
from anomalib_memd.components.one_class import GaussianDensity


class Distance(StrEnum):
    """How far from normal a pooled feature is."""

    NEIGHBOURS = "neighbours"
    """Mean Euclidean distance to the nearest normal ones, channels standardised (Bergman et al., "Deep Nearest
    Neighbor Anomaly Detection", 2020)."""
    MAHALANOBIS = "mahalanobis"
    """Mahalanobis distance to their mean, with a shrunk covariance (Rippel et al., "Modeling the Distribution
    of Normal Data in Pre-Trained Deep Features for Anomaly Detection", ICPR 2020)."""


class PooledBackbone(nn.Module):
    """Averages of backbone features over the image.

    Args:
        backbone: Feature extractor.
    """

    def __init__(self, backbone: TimmFeatureExtractor) -> None:
        super().__init__()
        self.backbone = backbone

    def pool(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features ``(B, C)`` of normalised images ``(B, 3, H, W)``."""
        return torch.cat([feature.mean((-2, -1)) for feature in self.backbone(images).values()], dim=1)


class PooledFeaturesModel(PooledBackbone):
    """Averages of backbone features over the image, and their distance from normal.

    Args:
        backbone: Feature extractor.
        distance: Which distance.
        neighbours: Number of nearest neighbours.
    """

    def __init__(
        self,
        backbone: TimmFeatureExtractor,
        distance: Distance | str = Distance.NEIGHBOURS,
        neighbours: int = 2,
    ) -> None:
        super().__init__(backbone)
        channels = sum(backbone.out_dims)
        near = Distance(distance) is Distance.NEIGHBOURS
        self.density = NearestNormals(channels, neighbours) if near else GaussianDensity(channels)
        self.register_buffer("fitted", torch.tensor(False))
        """Whether it has seen normal images."""
        self.fitted: torch.Tensor

    def fit(self, features: Sequence[torch.Tensor]) -> None:
        """Take in the pooled features of all normal images.

        Args:
            features: Batches of shape ``(B, C)``.
        """
        self.density.fit(torch.cat(list(features)))
        self.fitted.fill_(True)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            Distances of shape ``(B,)``; there is no map.

        Raises:
            RuntimeError: If :meth:`fit` has not been called.
        """
        if not torch.compiler.is_compiling() and not self.fitted:
            msg = "This detector has seen no normal image yet: train it first, or give a checkpoint."
            raise RuntimeError(msg)
        return InferenceBatch(pred_score=self.density(self.pool(images)))
