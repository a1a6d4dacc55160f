"""Models."""

from .memd import MEMD
from .pooled import PooledFeatures
from .wtngan import WtNGAN

__all__ = ["MEMD", "PooledFeatures", "WtNGAN"]
