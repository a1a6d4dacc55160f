"""SimpleNet: a discriminator between adapted features of normal images and the same with noise."""

from .lightning_model import SimpleNet
from .torch_model import SimpleNetModel

__all__ = ["SimpleNet", "SimpleNetModel"]
