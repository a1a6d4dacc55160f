"""MEMD: multimodal enhanced fusion and multi-branch distillation."""

from .lightning_model import MEMD
from .torch_model import MEMDModel

__all__ = ["MEMD", "MEMDModel"]
