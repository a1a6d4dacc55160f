"""The learned translation of white light into narrow band images."""

from pathlib import Path

import torch
from torch import nn

from anomalib_memd.files import file_digest
from anomalib_memd.models.wtngan import WtNGAN


class LearnedNBI(nn.Module):
    """Translate with the generator of a trained WtNGAN, in place of :class:`~anomalib_memd.SpectralNBI`.

    Args:
        weights: Checkpoint of :class:`~anomalib_memd.WtNGAN`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint of WtNGAN.
    """

    def __init__(self, weights: Path | str) -> None:
        super().__init__()
        try:
            model = WtNGAN.load_from_checkpoint(weights, map_location="cpu")
        except FileNotFoundError:
            raise
        except Exception as error:
            msg = f"{weights}: no readable checkpoint of WtNGAN ({type(error).__name__}: {error})."
            raise ValueError(msg) from error
        self.generator = model.generator.eval().requires_grad_(False)
        self.digest = file_digest(weights)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Translate white light images.

        Args:
            image: sRGB images in [0, 1] of shape ``(..., 3, H, W)``.

        Returns:
            sRGB narrow band images in [0, 1] of the same shape.
        """
        batch = image.reshape(-1, *image.shape[-3:])
        return self.generator(batch).reshape(image.shape)

    def extra_repr(self) -> str:
        """The digest of the weights; what identifies this translator in cache keys."""
        return f"weights={self.digest}"
