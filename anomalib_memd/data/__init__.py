"""Endoscopic images: datamodules, datasets and their items."""

from .captioned import CaptionedImageBatch, CaptionedImageItem, LabelledDataset
from .dataset import DataModality, EndoscopyDataset, UnpairedDataset
from .kvasir import Kvasir
from .labelled import FewShot, LeaveOneOrganOut, Segmentation
from .paired import PairedImageBatch, PairedImageItem
from .phantom import Phantom
from .pseudo_text import PseudoText, TemplateError
from .reading import ImageReadError
from .skin_lesion import SkinLesion
from .split import SplitError
from .unpaired import UnpairedImages

__all__ = [
    "CaptionedImageBatch",
    "CaptionedImageItem",
    "DataModality",
    "EndoscopyDataset",
    "FewShot",
    "ImageReadError",
    "Kvasir",
    "LabelledDataset",
    "LeaveOneOrganOut",
    "PairedImageBatch",
    "PairedImageItem",
    "Phantom",
    "PseudoText",
    "Segmentation",
    "SkinLesion",
    "SplitError",
    "TemplateError",
    "UnpairedDataset",
    "UnpairedImages",
]
