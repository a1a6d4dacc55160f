"""Lesions and Perlin noise, in turns of two seeds."""

import torch

from .drawing import Images
from .lesion import draw_lesions
from .perlin import draw_perlin


def draw_mixed(images: Images, donor: Images, seed: int) -> tuple[Images, torch.Tensor]:
    """Draw lesions for seeds 0, 1, 4, 5, ... and Perlin noise for all others.

    Both make an abnormal image. Lesions alone show what an abnormal place is, so the mask of the noise is a half.
    Images that are no pair have neighbouring seeds, an even one in white light.
    """
    if seed // 2 % 2 == 0:
        return draw_lesions(images, donor, seed)
    abnormal, mask = draw_perlin(images, donor, seed)
    return abnormal, 0.5 * mask
