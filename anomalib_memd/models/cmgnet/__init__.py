"""CMG-Net: segmentation guided by text."""

from .attention import AxisAttention, MultiAxisAttention
from .fusion import FusionLayer, TextFusion
from .lightning_model import CMGNet
from .torch_model import CMGNetModel

__all__ = ["AxisAttention", "CMGNet", "CMGNetModel", "FusionLayer", "MultiAxisAttention", "TextFusion"]
