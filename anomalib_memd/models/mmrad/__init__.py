"""MMRAD: one decoder for both modalities on a prompted SAM encoder."""

from .encoder import PromptedEncoder
from .lightning_model import MMRAD
from .torch_model import MMRADModel, TaskDecoder

__all__ = ["MMRAD", "MMRADModel", "PromptedEncoder", "TaskDecoder"]
