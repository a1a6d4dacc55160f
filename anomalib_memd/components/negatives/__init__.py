"""Negatives: abnormal images and features, made from normal ones. One kind a file."""

from .drawing import Images, field_of_view
from .noise import FeatureNoise
from .pool import NegativePool, pair_of, synthesise
from .registry import KINDS, ImageSynthesis

__all__ = [
    "KINDS",
    "FeatureNoise",
    "ImageSynthesis",
    "Images",
    "NegativePool",
    "field_of_view",
    "pair_of",
    "synthesise",
]
