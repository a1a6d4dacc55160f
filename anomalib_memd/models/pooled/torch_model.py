"""PyTorch model of the plain detectors: distance of pooled backbone features from those of normal images."""

from collections.abc import Sequence
from enum import StrEnum

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import DynamicBufferMixin, TimmFeatureExtractor
from sklearn.covariance import LedoitWolf
from torch import nn

from anomalib_memd.components.distance import nearest_squares


class Distance(StrEnum):
    """How far from normal a pooled feature is."""

    NEIGHBOURS = "neighbours"
    """Mean Euclidean distance to the nearest normal ones, channels standardised (Bergman et al., "Deep Nearest
    Neighbor Anomaly Detection", 2020)."""
    MAHALANOBIS = "mahalanobis"
    """Mahalanobis distance to their mean, with a shrunk covariance (Rippel et al., "Modeling the Distribution
    of Normal Data in Pre-Trained Deep Features for Anomaly Detection", ICPR 2020)."""


class PooledFeaturesModel(DynamicBufferMixin, nn.Module):
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
        super().__init__()
        self.backbone = backbone
        self.distance = Distance(distance)
        self.neighbours = neighbours
        self.register_buffer("bank", torch.empty(0))
        """Normal features ``(N, C)``, or the centre ``(1, C)``, in the coordinates of the distance."""
        self.register_buffer("centre", torch.empty(0))
        """Mean of the normal features, ``(C,)``."""
        self.register_buffer("whitening", torch.empty(0))
        """What takes centred features there: a factor for each channel ``(C,)``, or a matrix ``(C, C)``."""
        self.bank: torch.Tensor
        self.centre: torch.Tensor
        self.whitening: torch.Tensor

    def pool(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features ``(B, C)`` of normalised images ``(B, 3, H, W)``."""
        return torch.cat([feature.mean((-2, -1)) for feature in self.backbone(images).values()], dim=1)

    def fit(self, features: Sequence[torch.Tensor]) -> None:
        """Take in the pooled features of all normal images.

        Args:
            features: Batches of shape ``(B, C)``.
        """
        normal = torch.cat(list(features))
        self.centre = normal.mean(0)
        if self.distance is Distance.NEIGHBOURS:
            deviation = normal.std(0)
            self.whitening = 1 / torch.where(deviation > 1e-6, deviation, 1.0)  # A dead channel has no unit.
            self.bank = self._whiten(normal)
        else:
            precision = torch.from_numpy(LedoitWolf().fit(normal.double().cpu().numpy()).precision_)
            values, vectors = torch.linalg.eigh(precision)
            self.whitening = (vectors * values.clamp_min(0).sqrt()).to(normal)
            self.bank = torch.zeros_like(normal[:1])

    def _whiten(self, features: torch.Tensor) -> torch.Tensor:
        centred = features - self.centre
        return centred * self.whitening if self.whitening.ndim == 1 else centred @ self.whitening

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            Distances of shape ``(B,)``; there is no map.

        Raises:
            RuntimeError: If :meth:`fit` has not been called.
        """
        if self.bank.numel() == 0:
            msg = "This detector has seen no normal image yet: train it first, or give a checkpoint."
            raise RuntimeError(msg)
        nearest = nearest_squares(self._whiten(self.pool(images)), self.bank, self.neighbours)
        return InferenceBatch(pred_score=nearest.clamp_min(0).sqrt().mean(1))
