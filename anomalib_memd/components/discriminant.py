"""Fisher's linear discriminant between normal features and what a lesion changes in them."""

from typing import NamedTuple

import torch


class Discriminant(NamedTuple):
    """Log odds ``weight @ x + bias`` of a feature vector ``x`` of being abnormal."""

    weight: torch.Tensor
    """Shape ``(C,)``."""
    bias: torch.Tensor
    """Scalar."""

    def scaled(self, deviation: torch.Tensor) -> "Discriminant":
        """The same in units of a deviation."""
        return Discriminant(*(value / deviation.clamp_min(1e-6) for value in self))


def whitened(covariance: torch.Tensor, target: torch.Tensor, shrinkage: float) -> torch.Tensor:
    r"""Solve ``(R + shrinkage) D w = D^{-1} target`` with the correlations ``R`` and deviations ``D`` of a covariance.

    With the change that lesions make as the target this is Fisher's discriminant, whose covariance is that of
    normal features alone: what varies among normal tissue counts little, however much lesions change it. With
    the covariance of features and a function of them it is the linear prediction of that function.

    Args:
        covariance: Shape ``(C, C)``.
        target: Shape ``(C,)``.
        shrinkage: What is added to the diagonal of the correlations.

    Returns:
        Shape ``(C,)``.

    Source:
        Hariharan, Malik, Ramanan, "Discriminative Decorrelation for Clustering and Classification", ECCV 2012.
    """
    deviation = covariance.diagonal().clamp_min(1e-12).sqrt()
    correlation = covariance / torch.outer(deviation, deviation)
    correlation.diagonal().add_(shrinkage)
    return torch.linalg.solve(correlation, target / deviation) / deviation


def location_discriminant(
    covariance: torch.Tensor, mean: torch.Tensor, change: torch.Tensor, shrinkage: float
) -> Discriminant:
    """Discriminant of locations, in units of its own deviation over normal ones; 0 half-way to the mean lesion.

    Args:
        covariance: Of normal locations, ``(C, C)``.
        mean: Of normal locations, ``(C,)``.
        change: Mean of what lesions add to the features, ``(C,)``.
        shrinkage: See :func:`whitened`.
    """
    weight = whitened(covariance, change, shrinkage)
    found = Discriminant(weight, -weight @ (mean + change / 2))
    return found.scaled((weight @ covariance @ weight).clamp_min(0).sqrt())


def image_discriminant(normal: torch.Tensor, change: torch.Tensor, ridge: float) -> Discriminant:
    """Discriminant of images, in units of its own deviation over normal ones; 0 half-way to the mean abnormal image.

    Args:
        normal: Statistics of normal images, ``(N, C)``.
        change: Mean of what lesions add to them, ``(C,)``.
        ridge: What is added to the variance of each statistic.
    """
    centred = normal - normal.mean(0)
    weight = whitened_among_samples(centred, change, ridge)
    found = Discriminant(weight, -weight @ (normal.mean(0) + change / 2))
    return found.scaled((centred @ weight).std(correction=0))


def whitened_among_samples(centred: torch.Tensor, target: torch.Tensor, ridge: float) -> torch.Tensor:
    """Solve ``(centred^T centred / N + ridge) w = target`` for fewer samples than dimensions.

    Args:
        centred: Samples of mean 0, ``(N, C)``.
        target: Shape ``(C,)``.
        ridge: What is added to the variance of each dimension.

    Returns:
        Shape ``(C,)``.
    """
    scaled = centred / len(centred) ** 0.5
    gram = scaled @ scaled.T
    gram.diagonal().add_(ridge)
    return (target - scaled.T @ torch.linalg.solve(gram, scaled @ target)) / ridge
