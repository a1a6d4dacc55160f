"""Contrastive reconstruction: a frozen and a learning encoder, each compared with what the other gives."""

from .lightning_model import ReContrast
from .torch_model import ReContrastModel, stop_easy

__all__ = ["ReContrast", "ReContrastModel", "stop_easy"]
