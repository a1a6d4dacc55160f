"""Antialiased resizing that can be exported."""

from collections.abc import Sequence

import torch
from torch import nn


class AntialiasedResize(nn.Module):
    """Resize images as torchvision's antialiased bilinear ``Resize`` does, by two matrix products.

    Export knows no antialiased resizing, and without it a network sees other images than it has learned from.
    Sizes of exported images may be dynamic.

    Args:
        size: Height and width of the result, in pixels.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize images of shape ``(B, C, h, w)`` to ``(B, C, height, width)``."""
        h, w = images.shape[-2:]
        # A size that is known while exporting is a plain number.
        if isinstance(h, int) and isinstance(w, int) and (h, w) == (self.height, self.width):
            return images
        return _triangular_weights(h, self.height, images) @ images @ _triangular_weights(w, self.width, images).T


def _triangular_weights(size: int, new_size: int, like: torch.Tensor) -> torch.Tensor:
    """Weight of each of ``size`` pixels in each of ``new_size`` ones; rows sum to 1."""
    scale = torch.ones((), dtype=like.dtype, device=like.device) * size / new_size
    centres = (torch.arange(new_size, dtype=like.dtype, device=like.device) + 0.5) * scale
    pixels = torch.arange(size, dtype=like.dtype, device=like.device) + 0.5
    weights = (1 - (pixels - centres[:, None]).abs() / scale.clamp_min(1)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)
