"""MEMD, multimodal anomaly detection for endoscopy, as a plugin for anomalib.

Importing this package registers its models and datamodules with anomalib.
"""

import warnings as _warnings

from anomalib_memd import environment as _environment  # noqa: F401  before the libraries that read it

with _warnings.catch_warnings():
    # What anomalib imports is deprecated by timm and by itself; nobody who imports this package can change it.
    _warnings.simplefilter("ignore", FutureWarning)
    from anomalib_memd import models
from anomalib_memd.data import (
    FewShot,
    Kvasir,
    LeaveOneOrganOut,
    PairedImageBatch,
    PairedImageItem,
    Phantom,
    Segmentation,
    SkinLesion,
    UnpairedImages,
)
from anomalib_memd.data.spectral import SpectralNBI
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models import *  # noqa: F403  a model is named there, once
from anomalib_memd.registry import register
from anomalib_memd.translation.learned import LearnedNBI
from anomalib_memd.version import __version__

__all__ = [
    "Branch",
    "FewShot",
    "Kvasir",
    "LearnedNBI",
    "LeaveOneOrganOut",
    "Modality",
    "PairedImageBatch",
    "PairedImageItem",
    "Phantom",
    "Segmentation",
    "SkinLesion",
    "SpectralNBI",
    "UnpairedImages",
    "__version__",
]
__all__ += models.__all__

register()
