"""Self-attention along the axes of a map."""

import torch
from torch import nn


class AxisAttention(nn.Module):
    r"""Attention among the rows, the columns or the channels of a map.

    .. math::
        \mathrm{softmax}\Big(\frac{(W_1 Q)(W_2 Q)^T}{\sqrt d}\Big) V

    with vectors of :math:`d` values. Both factors come from the queries: the weights follow the map alone.

    Args:
        channels: Number of channels.
        axis: ``row`` (locations of a row attend to each other), ``column`` or ``channel``.
    """

    def __init__(self, channels: int, axis: str) -> None:
        super().__init__()
        self.axis = axis
        self.query = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.first = nn.Conv2d(channels, channels, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within maps ``(B, C, h, w)``; the result has the same shape."""
        query = self.query(x)
        first, second, value = (self._vectors(y) for y in (self.first(query), self.second(query), self.value(x)))
        weights = (first @ second.mT / first.shape[-1] ** 0.5).softmax(-1)
        return self._map(weights @ value, x.shape)

    def _vectors(self, x: torch.Tensor) -> torch.Tensor:
        """Sequences of vectors: ``(B, h, w, C)``, ``(B, w, h, C)``, or ``(B, C, h w)``."""
        order = {"row": (0, 2, 3, 1), "column": (0, 3, 2, 1)}
        return x.flatten(2) if self.axis == "channel" else x.permute(order[self.axis])

    def _map(self, vectors: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        order = {"row": (0, 3, 1, 2), "column": (0, 3, 2, 1)}
        return vectors.reshape(shape) if self.axis == "channel" else vectors.permute(order[self.axis])


class MultiAxisAttention(nn.Module):
    """Attention along rows, columns and channels, concatenated, projected, and added to the map.

    Args:
        channels: Number of channels.

    Source:
        Su and Meng, "CMG-Net", 2025. It leaves open whether the map itself is added.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.axes = nn.ModuleList(AxisAttention(channels, axis) for axis in ("row", "column", "channel"))
        self.join = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within maps ``(B, C, h, w)``; the result has the same shape."""
        return x + self.join(torch.cat([axis(x) for axis in self.axes], dim=1))
