"""Plain detectors on globally pooled backbone features, which any serious method must beat."""

from .lightning_model import PooledFeatures, PooledMixin
from .torch_model import Distance, PooledBackbone, PooledFeaturesModel

__all__ = ["Distance", "PooledBackbone", "PooledFeatures", "PooledFeaturesModel", "PooledMixin"]
