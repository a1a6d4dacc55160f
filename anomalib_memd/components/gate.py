"""A learned gate between what a vector is and what attention has found for it."""

import torch
from torch import nn

OPEN = 2.0
"""Log odds with which a gate starts to keep the features."""


class Gate(nn.Module):
    r"""Weighs, for each location and channel, its own features against those that attention gives.

    .. math::
        \alpha = \sigma\big(f([A; F_I; F_T])\big), \qquad F = \alpha F_I + (1 - \alpha) A

    with what attention found :math:`A`, the features themselves :math:`F_I`, those of the other modality :math:`F_T`,
    and a linear :math:`f`. It starts open: :math:`\alpha` is near 0.9, so that what is built on the features goes on
    to work while attention has learned nothing yet.

    Args:
        channels: Number of channels of each of the three.

    Source:
        Su and Meng, "CMG-Net", 2025, the fusion of image and text.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * channels, channels)
        nn.init.constant_(self.linear.bias, OPEN)

    def forward(self, attended: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Weigh features.

        Args:
            attended: ``A``, shape ``(B, N, C)``.
            own: ``F_I``, likewise.
            other: ``F_T``, likewise.

        Returns:
            ``F``, likewise.
        """
        alpha = self.linear(torch.cat([attended, own, other], dim=-1)).sigmoid()
        return alpha * own + (1 - alpha) * attended
