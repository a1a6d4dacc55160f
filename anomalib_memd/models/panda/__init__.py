"""Features of a pretrained network that are adapted to normal images, and their nearest neighbours."""

from .lightning_model import PANDA, MeanShifted
from .torch_model import MeanShiftedModel, PANDAModel, contrastive_loss

__all__ = ["PANDA", "MeanShifted", "MeanShiftedModel", "PANDAModel", "contrastive_loss"]
