"""Models."""

from .autoencoder import D2UE, DDAD, AutoEncoder
from .cmgnet import CMGNet
from .cmp import CMP
from .cutpaste import CutPaste
from .edc import EDC
from .fanogan import FAnoGAN
from .feature_autoencoder import FeatureAutoEncoder
from .foreign_patch import ForeignPatch
from .linear_probe import LinearProbe
from .memd import MEMD
from .mmrad import MMRAD
from .multiresolution import MultiresolutionKD
from .mvfa import MVFA, TextSimilarity
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
    "MVFA",
    "PANDA",
    "SCRD4AD",
    "AutoEncoder",
    "CMGNet",
    "CutPaste",
    "FAnoGAN",
    "FeatureAutoEncoder",
    "ForeignPatch",
    "LinearProbe",
    "MeanShifted",
    "MultiresolutionKD",
    "PooledFeatures",
    "ReContrast",
    "SimpleNet",
    "SkipTS",
    "TextSimilarity",
    "WtNGAN",
]
