"""Reading the frames of DICOM files, and nothing else that is in them.

Only the pixels leave this module. No attribute of a file, which may name the patient, stands in a message.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SUFFIX = ".dcm"


class DicomError(ValueError):
    """A DICOM file that cannot be used."""


def number_of_frames(path: Path) -> int:
    """Number of frames of a file.

    Raises:
        DicomError: If it cannot be read, or pydicom is not installed.
    """
    return int(_open(path).get("NumberOfFrames") or 1)


def read_frame(path: Path, frame: int | None = None) -> np.ndarray:
    """Read one frame as sRGB of 8 bits.

    Args:
        path: VL Endoscopic Image, Secondary Capture, or any other image of RGB, YBR, palette or grey values.
        frame: Number of the frame, from 0; may be left out where there is one.

    Returns:
        Array ``(H, W, 3)``.

    Raises:
        DicomError: If the file is no DICOM image or damaged, if there is no such frame, if data of the patient is
            written into its pixels (``BurnedInAnnotation``), or pydicom is not installed.

    Source:
        DICOM PS3.3, C.7.6.3 Image Pixel Module; PS3.5, 8.2 for what is compressed.
    """
    dataset = _open(path)
    from pydicom.pixels import apply_color_lut, apply_windowing, pixel_array  # noqa: PLC0415  an extra

    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        msg = f"{path}: data of the patient is written into its pixels (BurnedInAnnotation is YES); blank it out first."
        raise DicomError(msg)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frame is None and frames > 1:
        msg = f"{path}: holds {frames} frames; name one as {path.name}#0 to {path.name}#{frames - 1}."
        raise DicomError(msg)
    if not 0 <= (frame or 0) < frames:
        msg = f"{path}: has no frame {frame}; it holds {frames}, counted from 0."
        raise DicomError(msg)
    try:
        colours = dataset.PhotometricInterpretation
        highest = 2 ** int(dataset.BitsStored) - 1
        with _silence():
            pixels = pixel_array(path, index=frame or 0)  # This frame alone is read; YBR is converted to RGB.
        if colours == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
            highest = np.iinfo(pixels.dtype).max
        elif pixels.ndim == 2:
            pixels = apply_windowing(pixels, dataset)
    except Exception as error:
        # What pydicom says may quote attributes.
        kind = type(error).__name__
        msg = f"{path}: its pixels cannot be read ({kind}); 'pip install pylibjpeg[all]' decodes more kinds."
        raise DicomError(msg) from None
    pixels = (pixels.astype(np.float64) / highest * 255).round().clip(0, 255).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.stack([255 - pixels if colours == "MONOCHROME1" else pixels] * 3, axis=-1)
    if pixels.ndim != 3 or pixels.shape[-1] != 3:
        msg = f"{path}: pixels of shape {pixels.shape} are no colour or grey image."
        raise DicomError(msg)
    return np.ascontiguousarray(pixels)


def _open(path: Path) -> Any:
    """Attributes of a file, without its pixels."""
    try:
        import pydicom  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        msg = f"{path}: DICOM needs pydicom; run: pip install 'anomalib-memd[dicom]'."
        raise DicomError(msg) from error
    try:
        with _silence():
            return pydicom.dcmread(path, stop_before_pixels=True)
    except FileNotFoundError:
        msg = f"{path}: no such file."
        raise DicomError(msg) from None
    except Exception as error:
        msg = f"{path}: no DICOM file, or a damaged one ({type(error).__name__})."
        raise DicomError(msg) from None


@contextmanager
def _silence() -> Iterator[None]:
    """Keep warnings back, which quote attributes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
