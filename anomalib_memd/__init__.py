"""MEMD, multimodal anomaly detection for endoscopy, as a plugin for anomalib.

Importing this package registers its models and datamodules with anomalib.
"""

from anomalib_memd.data import Kvasir, PairedImageBatch, PairedImageItem, Phantom
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models import MEMD, PooledFeatures
from anomalib_memd.registry import register
from anomalib_memd.translation import SpectralNBI
from anomalib_memd.version import __version__

__all__ = [
    "MEMD",
    "Branch",
    "Kvasir",
    "Modality",
    "PairedImageBatch",
    "PairedImageItem",
    "Phantom",
    "PooledFeatures",
    "SpectralNBI",
    "__version__",
]

register()
