"""A network that finds patches of other normal images: FPI, PII and NSA."""

from .blend import KINDS, Blend, harmonic, interpolate, natural, poisson
from .lightning_model import ForeignPatch
from .torch_model import ForeignPatchModel

__all__ = ["KINDS", "Blend", "ForeignPatch", "ForeignPatchModel", "harmonic", "interpolate", "natural", "poisson"]
