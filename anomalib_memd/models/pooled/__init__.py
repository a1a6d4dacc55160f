"""Plain detectors on globally pooled backbone features, which any serious method must beat."""

from .lightning_model import PooledFeatures
from .torch_model import Distance, PooledFeaturesModel

__all__ = ["Distance", "PooledFeatures", "PooledFeaturesModel"]
