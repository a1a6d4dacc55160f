"""Reverse distillation with noisy images as contrast and a weight for each scale."""

from .lightning_model import SCRD4AD
from .torch_model import SCRD4ADModel, add_noise

__all__ = ["SCRD4AD", "SCRD4ADModel", "add_noise"]
