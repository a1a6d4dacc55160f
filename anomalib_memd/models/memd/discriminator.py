"""The discriminator head: normal or abnormal, for each location and for the image."""

from typing import NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from .statistics import ChannelStandardization, global_statistics


class Logits(NamedTuple):
    """Two logits (normal, abnormal) on both levels."""

    location: torch.Tensor
    """Shape ``(B, 2, H, W)``."""
    image: torch.Tensor
    """Shape ``(B, 2)``."""


class DiscriminatorHead(nn.Module):
    """Two logits for each location, and two for the image from global statistics.

    Args:
        channels: Number of channels of the features from which locations are judged.
        evidence_channels: Number of channels of those from whose global statistics the image is judged.
        hidden: Hidden width of the location level.
    """

    def __init__(self, channels: int, evidence_channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.location = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, 2, 1),
        )
        self.standardize = ChannelStandardization(2 * evidence_channels)
        self.image = nn.Linear(2 * evidence_channels, 2)
        nn.init.zeros_(self.image.weight)
        nn.init.zeros_(self.image.bias)

    def weigh(self, evidence: torch.Tensor) -> torch.Tensor:
        """What the image logits are linear in: the standardised global statistics, of about unit length.

        Args:
            evidence: Features of shape ``(B, evidence_channels, H, W)``.

        Returns:
            Shape ``(B, 2 * evidence_channels)``.
        """
        return self.standardize(global_statistics(evidence)) / self.image.in_features**0.5

    @torch.no_grad()
    def fit_image_logits(self, weighed: torch.Tensor, labels: torch.Tensor, ridge: float) -> None:
        """Solve for the image logits: logistic regression with both classes of equal weight.

        Where evidence does not change in training this problem is convex, and its solution is better found
        than approached in steps.

        Args:
            weighed: Output of :meth:`weigh` for all images, ``(N, 2 * evidence_channels)``.
            labels: Whether they are abnormal, boolean of shape ``(N,)``.
            ridge: L2 penalty of the weights of the standardised statistics, for a loss averaged over images.
        """
        scale = self.image.in_features**0.5
        regression = LogisticRegression(C=1 / (ridge * len(labels)), class_weight="balanced", max_iter=1000)
        regression.fit((weighed * scale).cpu().numpy(), labels.cpu().numpy())
        weight = torch.from_numpy(regression.coef_[0]).to(self.image.weight) * scale
        bias = torch.from_numpy(regression.intercept_).to(self.image.bias)
        self.image.weight.copy_(torch.stack([-weight / 2, weight / 2]))
        self.image.bias.copy_(torch.cat([-bias / 2, bias / 2]))

    def forward(self, features: torch.Tensor, evidence: torch.Tensor) -> Logits:
        """Judge an image and its locations.

        Args:
            features: Features of shape ``(B, channels, H, W)``.
            evidence: Features of shape ``(B, evidence_channels, H, W)``.

        Returns:
            Logits of both levels.
        """
        return Logits(self.location(features), self.image(self.weigh(evidence)))
