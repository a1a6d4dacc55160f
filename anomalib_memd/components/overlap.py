"""How well maps of chances overlap masks."""

import torch


def dice_loss(chance: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One minus the Dice coefficient of chances and masks, both ``(B, 1, H, W)``, over the whole batch.

    Source:
        Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation", 2016.
    """
    return 1 - (2 * (chance * target).sum() + 1) / (chance.sum() + target.sum() + 1)
