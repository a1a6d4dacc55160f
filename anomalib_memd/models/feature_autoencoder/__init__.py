"""An autoencoder of backbone features."""

from .lightning_model import FeatureAutoEncoder
from .torch_model import FeatureAutoEncoderModel, FeatureLoss

__all__ = ["FeatureAutoEncoder", "FeatureAutoEncoderModel", "FeatureLoss"]
