"""CMP: pseudo-lesions of several scales, and maps that are predicted from their surroundings."""

from .draw import pseudo_lesion
from .lightning_model import CMP
from .torch_model import CMPModel, MaskedPredictor

__all__ = ["CMP", "CMPModel", "MaskedPredictor", "pseudo_lesion"]
