"""A patch of an image that is pasted elsewhere in it."""

import math
from typing import NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.negatives.drawing import field_of_view, random_place, uniform
from anomalib_memd.modality import Modality

AREA, ASPECT = (0.02, 0.15), 3.3
"""Share of the image that a patch has, and largest ratio of its sides."""
WIDTH, LENGTH, TILT = (2, 16), (10, 25), 45.0
"""Width and length of a scar in pixels of a 256 pixels wide image, and its largest tilt in degrees."""
JITTER = 0.1
"""Largest change of brightness, contrast and colour."""
GLARE = 0.9
"""Brightness of the darkest colour that counts as glare."""
TRIES = 20
"""How often a place inside the tissue is looked for."""


class Patch(NamedTuple):
    """An image with a patch in it."""

    image: torch.Tensor
    """Shape ``(3, H, W)``."""
    mask: torch.Tensor
    """Where the patch lies, boolean ``(H, W)``."""


def cut_and_paste(image: torch.Tensor, random: torch.Generator, allowed: torch.Tensor | None = None) -> Patch:
    """Cut a rectangle, change its colours a little, and paste it elsewhere.

    Args:
        image: Image in [0, 1], ``(3, H, W)``.
        random: Draws everything.
        allowed: Where the patch may lie, boolean ``(H, W)``; everywhere if ``None``.

    Source:
        Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021.
    """
    height, width = image.shape[-2:]
    area, aspect = uniform(*AREA, random) * height * width, math.exp(uniform(-1, 1, random) * math.log(ASPECT))
    sides = min(height, max(1, round(math.sqrt(area * aspect)))), min(width, max(1, round(math.sqrt(area / aspect))))
    piece = _jitter(_cut(image, sides, random), random)
    return _paste(image, piece, torch.ones(sides, dtype=torch.bool), random, allowed)


def scar(image: torch.Tensor, random: torch.Generator, allowed: torch.Tensor | None = None) -> Patch:
    """The same with a long and thin rectangle, which is turned.

    Args:
        image: See :func:`cut_and_paste`, as all others.
        random: Likewise.
        allowed: Likewise.
    """
    unit = image.shape[-1] / 256
    sides = [max(2, round(uniform(*limits, random) * unit)) for limits in (LENGTH, WIDTH)]
    piece = _jitter(_cut(image, (sides[0], sides[1]), random), random)
    turned = _turn(torch.cat([piece, torch.ones_like(piece[:1])]), uniform(-TILT, TILT, random))
    return _paste(image, turned[:3] / turned[3:].clamp_min(1e-3), turned[3] > 0.5, random, allowed)


def open_tissue(images: torch.Tensor) -> torch.Tensor:
    """Where tissue is seen: inside the field of view, and without glare.

    Args:
        images: Images in [0, 1], ``(B, 3, H, W)``.

    Returns:
        Boolean, ``(B, H, W)``.

    Source:
        Sato et al., "Anatomy-aware Self-supervised Learning for Anomaly Detection in Chest Radiographs", iScience 2023,
        where the mask is that of the lung.
    """
    seen = torch.stack([field_of_view({Modality.WLI: image}) for image in images])
    return seen & (images.amin(1) < GLARE)


def _cut(image: torch.Tensor, sides: tuple[int, int], random: torch.Generator) -> torch.Tensor:
    top, left = random_place(image.shape[-2:], sides, random)
    return image[:, top : top + sides[0], left : left + sides[1]]


def _jitter(piece: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    brightness, contrast = (1 + uniform(-JITTER, JITTER, random) for _ in range(2))
    colour = 1 + JITTER * (2 * torch.rand(3, 1, 1, generator=random) - 1)
    mean = piece.mean((-2, -1), keepdim=True)
    return ((piece - mean) * contrast + mean * brightness * colour).clamp(0, 1)


def _turn(piece: torch.Tensor, degrees: float) -> torch.Tensor:
    """Turn a piece ``(C, h, w)`` about its centre, on a square that holds it, black outside."""
    side = math.ceil(math.hypot(*piece.shape[-2:]))
    low = [(side - s) // 2 for s in piece.shape[-2:]]
    padding = (low[1], side - piece.shape[2] - low[1], low[0], side - piece.shape[1] - low[0])
    square = F.pad(piece, padding)[None]
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    grid = F.affine_grid(turn[None], list(square.shape), align_corners=False)
    return F.grid_sample(square, grid, align_corners=False)[0]


def _paste(
    image: torch.Tensor, piece: torch.Tensor, shape: torch.Tensor, random: torch.Generator, allowed: torch.Tensor | None
) -> Patch:
    height, width = (min(a, b) for a, b in zip(shape.shape, image.shape[-2:], strict=True))
    piece, shape = piece[:, :height, :width], shape[:height, :width]
    allowed = torch.ones(image.shape[-2:], dtype=torch.bool) if allowed is None else allowed
    for _ in range(TRIES):
        top, left = random_place(image.shape[-2:], (height, width), random)
        if allowed[top + height // 2, left + width // 2]:
            break
    mask = torch.zeros_like(allowed)
    mask[top : top + height, left : left + width] = shape
    mask &= allowed
    pasted = image.clone()
    pasted[:, top : top + height, left : left + width] = piece
    return Patch(torch.where(mask, pasted, image), mask)
