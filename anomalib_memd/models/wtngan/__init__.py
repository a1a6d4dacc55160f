"""WtNGAN, unpaired translation of white light into narrow band images."""

from .lightning_model import WtNGAN

__all__ = ["WtNGAN"]
