"""The commands of ``anomalib-memd``, one a file."""

from .main import main

__all__ = ["main"]
