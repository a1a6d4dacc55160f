"""Gaussian noise on the features alone, as in SimpleNet."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from .drawing import Images


def draw_nothing(images: Images, donor: Images, seed: int) -> tuple[Images, torch.Tensor]:
    """Leave the images as they are: their features alone are changed, by :class:`FeatureNoise`."""
    del donor, seed
    return images, torch.zeros(next(iter(images.values())).shape[-2:])


class FeatureNoise(nn.Module):
    """Gaussian noise on features inside random blobs (SimpleNet, Liu et al., CVPR 2023).

    Args:
        std: Standard deviation of the noise in units of each channel's.
        cells: Number of blobs along the image side, on average.
    """

    def __init__(self, std: float = 0.5, cells: int = 4) -> None:
        super().__init__()
        self.std = std
        self.cells = cells

    def blobs(self, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
        """Draw the places of the noise.

        Args:
            shape: ``(batch, height, width)``.
            device: Where the mask is made.

        Returns:
            Boolean mask of ``shape``; about a quarter of it is true.
        """
        batch, height, width = shape
        noise = torch.randn(batch, 1, self.cells, self.cells, device=device)
        noise = F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)[:, 0]
        # Unlike torch.quantile this needs no float64, which some GPUs do not have.
        quartile = noise.flatten(1).sort(1).values[:, int(0.75 * (height * width - 1))]
        return noise > quartile[:, None, None]

    def forward(self, features: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Add noise to features.

        Args:
            features: ``(B, C, H, W)``.
            mask: Boolean of shape ``(B, H, W)``: where the noise goes.
            scale: Deviation of each channel, ``(C,)``, the unit of the noise.

        Returns:
            Noisy features of the same shape and type.
        """
        noisy = features.clone(memory_format=torch.contiguous_format)
        # Locations last, so that noise is drawn for those alone that get some.
        places = noisy.permute(0, 2, 3, 1)
        changed = places[mask]
        noise = self.std * scale * torch.randn(changed.shape, device=features.device)
        places[mask] = changed + noise.to(features.dtype)
        return noisy
