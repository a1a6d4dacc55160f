"""The discriminator head: normal or abnormal, for each location and for the image."""

from typing import NamedTuple

import torch
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

    def forward(self, features: torch.Tensor, evidence: torch.Tensor) -> Logits:
        """Judge an image and its locations.

        Args:
            features: Features of shape ``(B, channels, H, W)``.
            evidence: Features of shape ``(B, evidence_channels, H, W)``.

        Returns:
            Logits of both levels.
        """
        return Logits(self.location(features), self.image(self.standardize(global_statistics(evidence))))
