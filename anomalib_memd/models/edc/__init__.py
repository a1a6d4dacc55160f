"""Encoder-decoder contrast: an encoder that learns against the decoder that reconstructs it."""

from .lightning_model import EDC
from .torch_model import EDCModel

__all__ = ["EDC", "EDCModel"]
