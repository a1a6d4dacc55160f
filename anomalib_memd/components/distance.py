"""How far features are from normal ones."""

import torch
from torch import nn

from .statistics import varying

FOLDS = 8
"""Number of parts of few samples; each is measured by what was fitted to the others."""


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
    def fit_samples(self, samples: torch.Tensor) -> None:
        """Fit to samples ``(N, C)``, few of them perhaps; the scale is that of samples left out, fold by fold."""
        rows = torch.arange(len(samples), device=samples.device)
        left_out = []
        for fold in range(FOLDS):
            self._fit_moments(samples[rows % FOLDS != fold])
            left_out.append(self.distance(samples[rows % FOLDS == fold]))
        self._fit_moments(samples)
        self.fit_scale(torch.cat(left_out))

    @torch.no_grad()
    def fit_scale(self, distances: torch.Tensor) -> None:
        """Take over mean and deviation of :meth:`distance` over normal features, in any shape."""
        self.average.copy_(distances.mean())
        self.deviation.copy_(varying(distances.std(correction=0)))

    def _fit_moments(self, samples: torch.Tensor) -> None:
        samples = samples.double().cpu()  # Not every accelerator has double precision.
        mean, std = samples.mean(0), varying(samples.std(0, correction=0))
        scaled = (samples - mean) / std / len(samples) ** 0.5
        # The Gram matrix has the same variances, and is small where samples are few.
        variances, weights = (x.flip(-1) for x in torch.linalg.eigh(scaled @ scaled.T))
        rank = min(self.rank, len(samples) // 2)
        directions = weights.T[:rank] @ scaled / variances[:rank, None].clamp_min(1e-12).sqrt()
        rest = (scaled.square().sum() - variances[:rank].sum()) / (samples.shape[1] - rank)
        self._take_over(mean, std, variances[:rank], directions, rest)

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
