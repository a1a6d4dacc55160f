"""A U-shaped network."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


class UNet(nn.Module):
    """Two convolutions a level, halved and doubled grids, and connections between levels of one grid.

    Args:
        channels: Number of channels that come in.
        outputs: Number of channels that go out.
        widths: Number of channels of each level, the finest first.

    Source:
        Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015, with batch
        normalisation.
    """

    def __init__(self, channels: int = 3, outputs: int = 3, widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_level(*pair) for pair in pairwise([channels, *widths]))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, stride=2) for high, low in pairwise(widths))
        self.up = nn.ModuleList(_level(2 * width, width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], outputs, 1)
        self.pool = nn.MaxPool2d(2)

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps ``(B, width, H / 2^k, W / 2^k)`` of images ``(B, channels, H, W)`` at each level, the finest first."""
        kept: list[torch.Tensor] = []
        for number, level in enumerate(self.down):
            kept.append(level(self.pool(kept[-1]) if number else images))
        return kept

    def decode(self, kept: Sequence[torch.Tensor]) -> torch.Tensor:
        """From the maps of :meth:`encode` to ``(B, outputs, H, W)``."""
        value = kept[-1]
        for grow, level, beside in zip(reversed(self.grow), reversed(self.up), reversed(kept[:-1]), strict=True):
            value = level(torch.cat([grow(value), beside], dim=1))
        return self.head(value)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``(B, channels, H, W)`` to ``(B, outputs, H, W)``; sides are multiples of 2 a level below."""
        return self.decode(self.encode(images))


def _level(low: int, high: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            layer
            for width in (low, high)
            for layer in (nn.Conv2d(width, high, 3, padding=1, bias=False), nn.BatchNorm2d(high), nn.ReLU())
        )
    )
