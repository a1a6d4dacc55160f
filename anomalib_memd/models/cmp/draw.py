"""Pseudo-lesions: crops of several scales, mixed and pasted."""

import torch
from torchvision.transforms.v2.functional import resize

from anomalib_memd.components.negatives.drawing import random_place, uniform

SCALES = (1 / 16, 1 / 8, 1 / 4)
"""Sides of crops, as shares of that of the image."""
CROPS = 4
"""Largest number of crops."""
MIX = (0.3, 1.0)
"""Weight of a crop where it is pasted."""


def pseudo_lesion(
    image: torch.Tensor, donor: torch.Tensor, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste up to four crops of the image itself or of another one, resized to one of three scales and mixed.

    Args:
        image: Image of shape ``(C, H, W)``.
        donor: Another one of the same shape.
        random: Draws everything.

    Returns:
        The image with crops, and where they lie, boolean ``(H, W)``.
    """
    made, mask = image.clone(), torch.zeros(image.shape[-2:], dtype=torch.bool)
    for _ in range(1 + _number(CROPS, random)):
        cut, pasted = (SCALES[_number(len(SCALES), random)] for _ in range(2))
        source = (image, donor)[_number(2, random)]
        top, left, height, width = _square(image, cut, random)
        crop = source[:, top : top + height, left : left + width]
        top, left, height, width = _square(image, pasted, random)
        rows, columns = slice(top, top + height), slice(left, left + width)
        weight = uniform(*MIX, random)
        made[:, rows, columns] = torch.lerp(
            made[:, rows, columns], resize(crop, [height, width], antialias=True), weight
        )
        mask[rows, columns] = True
    return made, mask


def _number(below: int, random: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=random))


def _square(image: torch.Tensor, share: float, random: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a part of an image."""
    height, width = (max(2, round(share * side)) for side in image.shape[-2:])
    return *random_place(image.shape[-2:], (height, width), random), height, width
