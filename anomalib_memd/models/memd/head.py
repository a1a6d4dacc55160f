"""The discriminator head of a network: normal or abnormal, for each location."""

import torch
from torch import nn


class DiscriminatorHead(nn.Module):
    """Two logits (normal, abnormal) for each location.

    Args:
        channels: Number of channels of the features.
        hidden: Hidden width; 0 makes the logits linear in the features.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.location: nn.Module = nn.Conv2d(channels, 2, 1)
        if hidden:
            self.location = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(0.2), nn.Conv2d(hidden, 2, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, 2, H, W)`` of features ``(B, channels, H, W)``."""
        return self.location(features)


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Log odds of being abnormal, of shape ``(B, *)``, that two logits ``(B, 2, *)`` mean."""
    return logits[:, 1] - logits[:, 0]
