"""Patches of another image that are blended into one, and what is to be found of them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import fft
from torchvision.transforms.v2.functional import resize

from anomalib_memd.components.negatives.drawing import random_place, uniform

SIDE = (0.1, 0.4)
"""Side of a patch, as a share of that of the image."""
FACTOR = (0.05, 0.95)
"""Weight of the foreign image."""
PATCHES, SCALE = 3, (0.7, 1.3)
"""Largest number of patches of NSA, and by what they are resized."""
STEEPNESS, MIDDLE = 1 / 12, 24.0
"""What of a change of intensity, from 0 to 255, counts as half abnormal, and how steeply."""


class Blend(NamedTuple):
    """An image with a foreign patch."""

    image: torch.Tensor
    """Shape ``(3, H, W)``, in [0, 1]."""
    target: torch.Tensor
    """How abnormal each pixel is, ``(H, W)``, in [0, 1]."""


def interpolate(image: torch.Tensor, donor: torch.Tensor, random: torch.Generator) -> Blend:
    r"""Blend a rectangle of the other image in: :math:`(1 - \alpha) x + \alpha x'`; the target is :math:`\alpha`.

    Args:
        image: Image in [0, 1], ``(3, H, W)``.
        donor: Another one of the same shape.
        random: Draws everything.

    Source:
        Tan et al., "Detecting Outliers with Foreign Patch Interpolation", MELBA 2022.
    """
    top, left, height, width = _rectangle(image, random)
    target = torch.zeros(image.shape[-2:])
    target[top : top + height, left : left + width] = uniform(*FACTOR, random)
    return Blend(torch.lerp(image, donor, target), target)


def poisson(image: torch.Tensor, donor: torch.Tensor, random: torch.Generator) -> Blend:
    r"""The same in the gradients.

    .. math::
        \Delta u = (1 - \alpha) \Delta x + \alpha \Delta x', \quad u = x \text{ at the rim of the patch}

    The equation is linear. So the patch is the interpolation of the image and of a seamless clone.

    Args:
        image: See :func:`interpolate`, as all others.
        donor: Likewise.
        random: Likewise.

    Source:
        Tan et al., "Detecting Outliers with Poisson Image Interpolation", MICCAI 2021; Perez et al., "Poisson Image
        Editing", SIGGRAPH 2003.
    """
    top, left, height, width = _rectangle(image, random)
    cloned, inside = _clone(image, donor[:, top : top + height, left : left + width], top, left)
    target = uniform(*FACTOR, random) * inside
    return Blend(torch.lerp(image, cloned, target), target)


def natural(image: torch.Tensor, donor: torch.Tensor, random: torch.Generator) -> Blend:
    """Clone up to three patches of other places of the other image, resized; the target is a logistic of the change.

    Args:
        image: See :func:`interpolate`, as all others.
        donor: Likewise.
        random: Likewise.

    Source:
        Schlueter et al., "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization",
        ECCV 2022.
    """
    blended, mask = image, torch.zeros(image.shape[-2:])
    for _ in range(1 + int(torch.randint(PATCHES, (), generator=random))):
        top, left, height, width = _rectangle(image, random)
        patch = donor[:, top : top + height, left : left + width]
        scale = uniform(*SCALE, random)
        room = zip(image.shape[-2:], (height, width), strict=True)
        sides = [max(8, min(full, round(scale * side))) for full, side in room]
        patch = resize(patch, sides, antialias=True)
        top, left = random_place(image.shape[-2:], sides, random)
        blended, inside = _clone(blended, patch, top, left)
        mask = torch.maximum(mask, inside)
    change = 255 * (blended - image).abs().mean(0)
    return Blend(blended, mask * torch.sigmoid(STEEPNESS * (change - MIDDLE)))


KINDS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Generator], Blend]] = {
    "fpi": interpolate,
    "pii": poisson,
    "nsa": natural,
}
"""The kinds by name."""


def _clone(image: torch.Tensor, patch: torch.Tensor, top: int, left: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The image with a patch cloned seamlessly at a place, and where that is, ``(H, W)``, 1 inside the rim."""
    height, width = patch.shape[-2:]
    rows, columns = slice(top + 1, top + height - 1), slice(left + 1, left + width - 1)
    difference = image[:, top : top + height, left : left + width] - patch
    inside = torch.zeros(image.shape[-2:])
    inside[rows, columns] = 1
    made = image.clone()
    # What leaves the range of colours is cut off.
    made[:, rows, columns] = (patch[:, 1:-1, 1:-1] + harmonic(difference)).clamp(0, 1)
    return made, inside


def harmonic(values: torch.Tensor) -> torch.Tensor:
    r"""The solution of :math:`\Delta w = 0` inside rectangles, with the given values at their rims.

    The sine transform makes the Laplacian of five points diagonal, so that the solution is exact.

    Args:
        values: Shape ``(C, h, w)``; only their rims count.

    Returns:
        Shape ``(C, h - 2, w - 2)``.
    """
    rim = values.double().numpy().copy()
    rim[:, 1:-1, 1:-1] = 0
    pulled = rim[:, :-2, 1:-1] + rim[:, 2:, 1:-1] + rim[:, 1:-1, :-2] + rim[:, 1:-1, 2:]
    height, width = pulled.shape[-2:]
    row, column = (2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) - 2 for n in (height, width))
    spectrum = fft.dstn(-pulled, type=1, axes=(-2, -1)) / (row[:, None] + column)
    return torch.from_numpy(fft.idstn(spectrum, type=1, axes=(-2, -1))).to(values)


def _rectangle(image: torch.Tensor, random: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a rectangle inside an image."""
    sides = [max(8, round(uniform(*SIDE, random) * full)) for full in image.shape[-2:]]
    top, left = random_place(image.shape[-2:], sides, random)
    return top, left, sides[0], sides[1]
