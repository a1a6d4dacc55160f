"""Models."""

from .autoencoder import D2UE, DDAD, AutoEncoder
from .cmp import CMP
from .cutpaste import CutPaste
from .edc import EDC
from .fanogan import FAnoGAN
from .feature_autoencoder import FeatureAutoEncoder
from .foreign_patch import ForeignPatch
from .memd import MEMD
from .mmrad import MMRAD
from .multiresolution import MultiresolutionKD
from .panda import PANDA, MeanShifted
from .pooled import PooledFeatures
from .recontrast import ReContrast
from .scrd4ad import SCRD4AD
from .simplenet import SimpleNet
from .skip_ts import SkipTS
from .wtngan import WtNGAN

__all__ = [
    "CMP",
    "D2UE",
    "DDAD",
    "EDC",
    "MEMD",
    "MMRAD",
    "PANDA",
    "SCRD4AD",
    "AutoEncoder",
    "CutPaste",
    "FAnoGAN",
    "FeatureAutoEncoder",
    "ForeignPatch",
    "MeanShifted",
    "MultiresolutionKD",
    "PooledFeatures",
    "ReContrast",
    "SimpleNet",
    "SkipTS",
    "WtNGAN",
]
