"""Reverse distillation with skip connections, and distances that agree across scales."""

from .lightning_model import SkipTS
from .torch_model import SkipDecoder, SkipTSModel, inconsistency

__all__ = ["SkipDecoder", "SkipTS", "SkipTSModel", "inconsistency"]
