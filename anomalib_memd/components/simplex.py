"""Simplex noise."""

import math

import torch

_SKEW, _UNSKEW = (math.sqrt(3) - 1) / 2, (3 - math.sqrt(3)) / 6
_SCALE = 70.0
"""What brings the sum of three corners to the range from -1 to 1."""


def simplex_noise(height: int, width: int, cell: float, random: torch.Generator) -> torch.Tensor:
    """Draw gradient noise on a grid of triangles, see :func:`noise_at`.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        cell: Length of a cell of the skewed grid, in pixels.
        random: Draws the place of the grid, and the angle at each corner.

    Returns:
        Noise of shape ``(height, width)``, in [-1, 1], 0 on average.
    """
    y, x = torch.meshgrid(torch.arange(height) / cell, torch.arange(width) / cell, indexing="ij")
    shift = torch.rand(2, generator=random)
    corners = 2 + math.ceil((1 + 2 * _SKEW) * (2 + max(height, width) / cell))
    angles = 2 * math.pi * torch.rand(corners, corners, generator=random)
    return noise_at(x + shift[0], y + shift[1], angles)


def noise_at(x: torch.Tensor, y: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    r"""Simplex noise at some places.

    .. math::
        n(p) = 70 \sum_{i=1}^3 \max(0, \tfrac12 - |d_i|^2)^4 \; g_i \cdot d_i

    with the vectors :math:`d_i` from the three nearest corners, and the unit vector :math:`g_i` of each corner.

    Args:
        x: Places in units of cells, at least 0.
        y: The other coordinate, of the same shape.
        angles: Angle of the unit vector of each corner of the skewed grid.

    Returns:
        The shape of ``x``; in [-1, 1], 0 at each corner.

    Source:
        Perlin, "Noise Hardware", SIGGRAPH course 36, 2001; Gustavson, "Simplex Noise Demystified", 2005.
    """
    skew = (x + y) * _SKEW
    i, j = (x + skew).floor(), (y + skew).floor()
    x0, y0 = x - i + (i + j) * _UNSKEW, y - j + (i + j) * _UNSKEW
    right = (x0 > y0).float()
    noise = torch.zeros_like(x)
    for step_i, step_j in ((0 * right, 0 * right), (right, 1 - right), (0 * right + 1, 0 * right + 1)):
        unskew = (step_i + step_j) * _UNSKEW
        dx, dy = x0 - step_i + unskew, y0 - step_j + unskew
        angle = angles[(i + step_i).long(), (j + step_j).long()]
        slope = angle.cos() * dx + angle.sin() * dy
        noise += (0.5 - dx.square() - dy.square()).clamp_min(0) ** 4 * slope
    return _SCALE * noise


def fractal_noise(
    height: int, width: int, cell: float, octaves: int, persistence: float, random: torch.Generator
) -> torch.Tensor:
    """Sum of simplex noise of ever smaller cells and weights.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        cell: Length of the largest cells, in pixels; those of each octave are half as long as those before.
        octaves: Number of sums.
        persistence: Weight of each octave, relative to the one before; the first has 1.
        random: Draws the noise.

    Returns:
        Shape ``(height, width)``.
    """
    parts = [persistence**n * simplex_noise(height, width, cell / 2**n, random) for n in range(octaves)]
    return torch.stack(parts).sum(0)
