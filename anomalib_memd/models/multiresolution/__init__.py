"""Multiresolution knowledge distillation: a small clone of a network, compared with it in several layers."""

from .lightning_model import MultiresolutionKD
from .torch_model import Clone, MultiresolutionKDModel

__all__ = ["Clone", "MultiresolutionKD", "MultiresolutionKDModel"]
