"""Endoscopic images: datamodules, datasets and their items."""

from .dataset import DataModality, EndoscopyDataset, UnpairedDataset
from .kvasir import Kvasir
from .paired import PairedImageBatch, PairedImageItem
from .phantom import Phantom
from .reading import ImageReadError
from .split import SplitError
from .unpaired import UnpairedImages

__all__ = [
    "DataModality",
    "EndoscopyDataset",
    "ImageReadError",
    "Kvasir",
    "PairedImageBatch",
    "PairedImageItem",
    "Phantom",
    "SplitError",
    "UnpairedDataset",
    "UnpairedImages",
]
