"""Translation of white light images into narrow band images."""

from .spectral import SpectralNBI

__all__ = ["SpectralNBI"]
