"""A rectangle cut from elsewhere and pasted, as in CutPaste."""

import math

import torch

from .drawing import Images, begin, random_place, replace, uniform


def draw_paste(images: Images, donor: Images, seed: int) -> tuple[Images, torch.Tensor]:
    """Paste a rectangle of 2 to 15 % of the image.

    Source:
        Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021.
    """
    visible, random = begin(images, seed)
    height, width = visible.shape
    mask = (_rectangle(height, width, random) & visible).float()
    return replace(images, donor, mask, random), mask


def _rectangle(height: int, width: int, random: torch.Generator) -> torch.Tensor:
    area, aspect = uniform(0.02, 0.15, random), math.exp(uniform(-1.0, 1.0, random))
    box_height = min(height, max(1, round(height * math.sqrt(area * aspect))))
    box_width = min(width, max(1, round(width * math.sqrt(area / aspect))))
    top, left = random_place((height, width), (box_height, box_width), random)
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top : top + box_height, left : left + box_width] = True
    return mask
