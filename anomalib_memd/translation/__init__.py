"""Translation of white light images into narrow band images."""

from anomalib_memd.data.spectral import SpectralNBI

__all__ = ["SpectralNBI"]
