"""Models."""

from .memd import MEMD
from .pooled import PooledFeatures

__all__ = ["MEMD", "PooledFeatures"]
