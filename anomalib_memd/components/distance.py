"""How far features are from normal ones."""

import torch
from anomalib.models.components import DynamicBufferMixin
from torch import nn

from .statistics import ChannelStandardization, varying

LARGEST_BANK = 2048
"""Number of normal images that are kept at most, evenly spaced among all."""


def nearest_squares(samples: torch.Tensor, bank: torch.Tensor, count: int) -> torch.Tensor:
    """Squared Euclidean distances to the nearest of some vectors, in rising order; unlike torch.cdist it is exported.

    Args:
        samples: Shape ``(B, C)``.
        bank: Shape ``(N, C)``.
        count: Number of nearest vectors; all if there are fewer.

    Returns:
        Shape ``(B, count)``; rounding may leave them a little below 0.
    """
    square = samples.square().sum(1, keepdim=True) + bank.square().sum(1) - 2 * samples @ bank.T
    return square.topk(min(count, len(bank)), largest=False).values


class NearestNormals(DynamicBufferMixin, nn.Module):
    """Mean Euclidean distance to the nearest normal samples, channels standardised.

    Args:
        channels: Number of channels.
        neighbours: Number of nearest samples.

    Source:
        Bergman et al., "Deep Nearest Neighbor Anomaly Detection", 2020.
    """

    def __init__(self, channels: int, neighbours: int = 2) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.standardize = ChannelStandardization(channels)
        self.register_buffer("bank", torch.zeros(1, channels))
        self.bank: torch.Tensor

    def forward(self, samples: torch.Tensor, among: bool = False) -> torch.Tensor:
        """Measure samples.

        Args:
            samples: Shape ``(B, C)``.
            among: Whether the samples are among the normal ones. None is then its own neighbour.

        Returns:
            Shape ``(B,)``, in float32.
        """
        with torch.autocast(samples.device.type, enabled=False):
            squares = nearest_squares(self.standardize(samples.float()), self.bank, self.neighbours + among)
            others = squares[:, 1:] if among and len(self.bank) > 1 else squares
            return others.clamp_min(1e-6).sqrt().mean(1)

    @torch.no_grad()
    def fit(self, normal: torch.Tensor) -> None:
        """Take over normal samples ``(N, C)``."""
        self.standardize.fit(normal.mean(0), normal.std(0, correction=0))
        step = -(-len(normal) // LARGEST_BANK)
        self.bank = self.standardize(normal)[::step].contiguous()


class NormalDistance(nn.Module):
    r"""Mahalanobis distance to normal features, in its own deviations among them; 0 at their mean distance.

    The covariance is that of probabilistic principal components: the :attr:`rank` largest variances
    :math:`\lambda_k` of the standardised features :math:`z`, along :math:`u_k`, and the mean :math:`\sigma^2`
    of all others,

    .. math::
        d^2 = \sum_k (u_k^T z)^2 / \lambda_k + (|z|^2 - \sum_k (u_k^T z)^2) / \sigma^2.

    Args:
        channels: Number of channels.
        rank: Largest number of components; fewer are used of few samples.

    Source:
        Tipping and Bishop, "Probabilistic Principal Component Analysis", J. R. Stat. Soc. B 1999.
    """

    def __init__(self, channels: int, rank: int = 256) -> None:
        super().__init__()
        self.rank = min(rank, channels - 1)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("components", torch.zeros(self.rank, channels))
        self.register_buffer("residual", torch.ones(()))
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.components: torch.Tensor
        self.residual: torch.Tensor
        self.average: torch.Tensor
        self.deviation: torch.Tensor

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Measure features of shape ``(B, C, *)``; the result has the shape ``(B, *)``, in float32."""
        return (self.distance(features) - self.average) / self.deviation

    def distance(self, features: torch.Tensor) -> torch.Tensor:
        """The same as it is, before its mean and deviation over normal features are brought to 0 and 1."""
        # Whitening is a difference of large numbers, so half precision would not do.
        with torch.autocast(features.device.type, enabled=False):
            vectors = features.float().flatten(2) if features.ndim > 2 else features.float()[..., None]
            centred = (vectors - self.mean[:, None]) / self.std[:, None]
            explained = self.components @ centred
            square = centred.square().sum(1) / self.residual - explained.square().sum(1)
            return square.clamp_min(1e-12).sqrt().view(features.shape[0], *features.shape[2:])

    @torch.no_grad()
    def fit_covariance(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        """Take over the moments of very many samples, of shapes ``(C,)`` and ``(C, C)``."""
        std = varying(covariance.diagonal().clamp_min(0).sqrt())
        variances, directions = (x.flip(-1) for x in torch.linalg.eigh(covariance / torch.outer(std, std)))
        self._take_over(mean, std, variances[: self.rank], directions.T[: self.rank], variances[self.rank :].mean())

    @torch.no_grad()
    def fit_scale(self, distances: torch.Tensor) -> None:
        """Take over mean and deviation of :meth:`distance` over normal features, in any shape."""
        self.average.copy_(distances.mean())
        self.deviation.copy_(varying(distances.std(correction=0)))

    def _take_over(
        self,
        mean: torch.Tensor,
        std: torch.Tensor,
        variances: torch.Tensor,
        directions: torch.Tensor,
        residual: torch.Tensor,
    ) -> None:
        """Take over the largest variances, ``(K,)``, their directions, ``(K, C)``, and the mean of all others."""
        residual = residual.clamp_min(1e-6)
        gain = (1 / residual - 1 / torch.maximum(variances, residual)).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.residual.copy_(residual)
        self.components.zero_()
        self.components[: len(gain)].copy_(gain[:, None] * directions)
