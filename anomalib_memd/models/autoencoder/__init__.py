"""Autoencoders of images, and methods of several of them."""

from .d2ue import D2UE, D2UEModel, centered_kernel_alignment
from .ddad import DDAD, DDADModel
from .kinds import KINDS, AutoEncoderModel
from .lightning_model import AutoEncoder

__all__ = [
    "D2UE",
    "DDAD",
    "KINDS",
    "AutoEncoder",
    "AutoEncoderModel",
    "D2UEModel",
    "DDADModel",
    "centered_kernel_alignment",
]
