"""Exported models: their metadata, and inference on a stream of frames."""

from .metadata import Metadata, ModelFileError, read_metadata
from .stream import AS_EXPORTED, ColourOrder, FramePrediction, FrameStream

__all__ = [
    "AS_EXPORTED",
    "ColourOrder",
    "FramePrediction",
    "FrameStream",
    "Metadata",
    "ModelFileError",
    "read_metadata",
]
