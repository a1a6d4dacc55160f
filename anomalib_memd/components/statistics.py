"""Statistics of the normal training features, by which MEMD standardises."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from .embedding import ImageFeatures


class FeatureStatistics(NamedTuple):
    """Mean and deviation of features over the normal training images of one modality, at each of S sizes."""

    mean: torch.Tensor
    """Of each channel, ``(S, C)``."""
    std: torch.Tensor
    """Of each channel, ``(S, C)``."""
    covariance: torch.Tensor
    """Of the channels, over all locations, ``(S, C, C)``."""
    global_mean: torch.Tensor
    """Of the deviations in an image, ``(S, C)``, see :attr:`.ImageFeatures.statistics`."""
    global_std: torch.Tensor
    """Likewise."""


class ChannelStandardization(nn.Module):
    """Standardise each channel by its mean and deviation over the normal training images.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def fit(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Take over statistics, both of shape ``(C,)``; a channel that never varies keeps a deviation of one."""
        self.mean.copy_(mean)
        self.std.copy_(varying(std))

    def before(self, weight: torch.Tensor) -> torch.Tensor:
        """Weight ``(K, C, 1, 1)`` of a 1x1 convolution that standardises centred features before the given one."""
        return weight / self.std[:, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Standardise features of shape ``(B, C)`` or ``(B, C, H, W)``."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)


class Whitening(nn.Module):
    r"""Make the channels of the normal training images uncorrelated and of one deviation.

    .. math::
        \tilde x = (R + s I)^{-1/2} \, D^{-1} (x - \mu)

    with the deviations :math:`D` and the correlations :math:`R` of the channels over all locations. The root is the
    symmetric one, so that each channel stays as close to itself as it can (ZCA).

    Args:
        channels: Number of channels.
        shrinkage: The :math:`s` that is added to the correlations, above 0; a large one only standardises.

    Raises:
        ValueError: If ``shrinkage`` is not above 0.

    Source:
        Kessy, Lewin and Strimmer, "Optimal Whitening and Decorrelation", The American Statistician 2018 (ZCA-cor).
    """

    def __init__(self, channels: int, shrinkage: float) -> None:
        super().__init__()
        if shrinkage <= 0:
            msg = f"whitening adds a shrinkage above 0 to the correlations of channels, got {shrinkage}."
            raise ValueError(msg)
        self.shrinkage = shrinkage
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("matrix", torch.eye(channels))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.matrix: torch.Tensor

    def fit(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        """Take over the mean ``(C,)`` and the covariance ``(C, C)`` of the channels."""
        std = varying(covariance.diagonal().clamp_min(0).sqrt()).double()
        correlation = covariance.double() / torch.outer(std, std)
        correlation.diagonal().add_(self.shrinkage)
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.matrix.copy_(whitening(std, correlation))

    def before(self, weight: torch.Tensor) -> torch.Tensor:
        """Weight ``(K, C, 1, 1)`` of a 1x1 convolution that whitens centred features before the given one."""
        # Weights that whiten are large and of either sign, so their product has 32 bits.
        with torch.autocast(weight.device.type, enabled=False):
            return (weight.flatten(1) @ self.matrix)[..., None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Whiten features of shape ``(B, C, H, W)``."""
        return torch.einsum("kc,bchw->bkhw", self.matrix, x - self.mean[:, None, None])


def whitening(deviation: torch.Tensor, correlation: torch.Tensor) -> torch.Tensor:
    """The matrix that whitens: the inverse root of correlations ``(C, C)``, after dividing by deviations ``(C,)``."""
    variances, axes = torch.linalg.eigh(correlation)
    return (axes / variances.clamp_min(1e-6).sqrt()) @ axes.T / deviation


def varying(deviation: torch.Tensor) -> torch.Tensor:
    """Deviations to divide by: what never varies has one of one."""
    return torch.where(deviation > 1e-6, deviation, 1.0)


def global_statistics(features: torch.Tensor) -> torch.Tensor:
    """Pool features over the image: the deviation of each channel.

    It rises where a small part of the image is unlike the rest, which the mean hardly notices.

    Args:
        features: Shape ``(B, C, H, W)``.

    Returns:
        Shape ``(B, C)`` in float32.
    """
    locations = features.flatten(2)
    # Several times as fast as Tensor.var.
    square = torch.linalg.vector_norm(locations, dim=-1, dtype=torch.float32).square() / locations.shape[-1]
    variance = square - locations.mean(-1, dtype=torch.float32).square()
    return variance.clamp_min(1e-12).sqrt()


def feature_statistics(batches: Iterable["ImageFeatures"]) -> FeatureStatistics:
    """Compute the statistics of a set of images in one pass.

    Args:
        batches: Features of images.

    Returns:
        Statistics in float32.
    """
    sums = [torch.zeros((), dtype=torch.float64) for _ in range(4)]
    images, locations = 0, torch.zeros((), dtype=torch.float64)
    for batch in batches:
        vectors = [own.movedim(1, -1).flatten(0, 2).float() for own in batch.maps]
        pooled = batch.statistics.cpu().double()
        images += len(pooled)
        locations = locations + torch.tensor([len(own) for own in vectors])
        firsts, seconds = (torch.stack(own) for own in zip(*((x.sum(0), x.T @ x) for x in vectors), strict=True))
        parts = firsts, seconds, pooled.sum(0), pooled.square().sum(0)
        sums = [total + part.cpu().double() for total, part in zip(sums, parts, strict=True)]
    mean, global_mean = sums[0] / locations[:, None], sums[2] / images
    covariance = sums[1] / locations[:, None, None] - mean[:, :, None] * mean[:, None]
    std = covariance.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    global_std = (sums[3] / images - global_mean.square()).clamp_min(0).sqrt()
    return FeatureStatistics(*(value.float() for value in (mean, std, covariance, global_mean, global_std)))
