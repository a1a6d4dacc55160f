"""CutPaste: a network tells normal images from those with a patch or a scar of their own."""

from .draw import Patch, cut_and_paste, open_tissue, scar
from .lightning_model import CutPaste
from .torch_model import CutPasteModel

__all__ = ["CutPaste", "CutPasteModel", "Patch", "cut_and_paste", "open_tissue", "scar"]
