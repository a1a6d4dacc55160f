"""Models."""

from .memd import MEMD

__all__ = ["MEMD"]
