"""Another image's texture inside thresholded Perlin-like noise, as in DRAEM."""

import torch

from .drawing import Images, begin, replace, smooth_noise


def draw_perlin(images: Images, donor: Images, seed: int) -> tuple[Images, torch.Tensor]:
    """Draw foreign texture of one opacity between 0.3 and 1 inside blobs of noise.

    Source:
        Zavrtanik et al., "DRAEM: A Discriminatively Trained Reconstruction Embedding for Surface Anomaly Detection",
        ICCV 2021.
    """
    visible, random = begin(images, seed)
    mask = (smooth_noise(*visible.shape, cells=6, random=random) > 0.75) & visible
    opacity = mask * (0.3 + 0.7 * torch.rand((), generator=random))
    return replace(images, donor, opacity, random), mask.float()
