"""MMRAD: one decoder for both modalities on the prompted encoder of SAM, or on a backbone in its place."""

from .encoder import PromptedBackbone, PromptedEncoder
from .lightning_model import MMRAD
from .torch_model import MMRADModel, TaskDecoder

__all__ = ["MMRAD", "MMRADModel", "PromptedBackbone", "PromptedEncoder", "TaskDecoder"]
