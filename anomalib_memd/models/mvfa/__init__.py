"""MVFA: adapters of CLIP at four levels, for a few labelled images, or for those of other organs."""

from .lightning_model import MVFA
from .prompts import PromptError, read_prompts
from .similarity import TextSimilarity
from .torch_model import Adapter, Memory, MVFAModel, Use
from .towers import ClipTower, TimmTower, Tower

__all__ = [
    "MVFA",
    "Adapter",
    "ClipTower",
    "MVFAModel",
    "Memory",
    "PromptError",
    "TextSimilarity",
    "TimmTower",
    "Tower",
    "Use",
    "read_prompts",
]
