"""How far vectors are from normal ones: what methods end with that learn vectors of images."""

import torch
from anomalib.models.components import DynamicBufferMixin
from sklearn.covariance import LedoitWolf
from torch import nn
from torch.nn import functional as F  # noqa: N812

from .distance import nearest_squares


class GaussianDensity(nn.Module):
    """Mahalanobis distance from the mean of normal vectors, with a shrunk covariance.

    Args:
        channels: Number of values of a vector.

    Source:
        Ledoit and Wolf, "A Well-conditioned Estimator for Large-dimensional Covariance Matrices", J. Multivariate
        Analysis 2004.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("root", torch.eye(channels))
        self.mean: torch.Tensor
        self.root: torch.Tensor

    def fit(self, normal: torch.Tensor) -> None:
        """Take over normal vectors ``(N, C)``."""
        precision = torch.from_numpy(LedoitWolf().fit(normal.double().cpu().numpy()).precision_)
        values, vectors = torch.linalg.eigh(precision)
        self.mean.copy_(normal.mean(0))
        self.root.copy_(vectors * values.clamp_min(0).sqrt())

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Distances ``(B,)`` of vectors ``(B, C)``."""
        return torch.linalg.vector_norm((samples - self.mean) @ self.root, dim=1)


class NearestVectors(DynamicBufferMixin, nn.Module):
    """Mean squared distance to the nearest normal vectors.

    Args:
        channels: Number of values of a vector.
        neighbours: Number of nearest vectors.
        unit: Whether vectors are brought to length 1 first; the distance is then 2 minus twice the cosine.
    """

    def __init__(self, channels: int, neighbours: int = 2, unit: bool = False) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.unit = unit
        self.register_buffer("bank", torch.zeros(1, channels))
        self.bank: torch.Tensor

    def fit(self, normal: torch.Tensor) -> None:
        """Take over normal vectors ``(N, C)``."""
        self.bank = F.normalize(normal, dim=1) if self.unit else normal.contiguous()

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Distances ``(B,)`` of vectors ``(B, C)``."""
        samples = F.normalize(samples, dim=1) if self.unit else samples
        return nearest_squares(samples, self.bank, self.neighbours).clamp_min(0).mean(1)
