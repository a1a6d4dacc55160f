"""Reading endoscopic images, with errors that name the file."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError
from torchvision.tv_tensors import Image

from . import dicom

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", dicom.SUFFIX)


class ImageReadError(ValueError):
    """A file that is no image this package can use."""


def read_image(path: str | Path) -> Image:
    """Read an image as sRGB, turned as its EXIF orientation says.

    Args:
        path: See :func:`read_array`.

    Returns:
        Float image in [0, 1] of shape ``(3, H, W)``.

    Raises:
        ImageReadError: See :func:`read_array`.
    """
    return Image(torch.from_numpy(read_array(path)).permute(2, 0, 1).float().div_(255))


def read_array(path: str | Path) -> np.ndarray:
    """Read an image as sRGB of 8 bits, turned as its EXIF orientation says.

    Grey and palette images become RGB, 16-bit grey images are scaled to 8 bits, and an alpha channel that is
    opaque everywhere is dropped. Nothing else is guessed.

    Args:
        path: Image file; of a DICOM file of several frames, ``FILE.dcm#0`` is the first.

    Returns:
        Array ``(H, W, 3)``.

    Raises:
        ImageReadError: If the file is missing, truncated, no image, or its colours have no clear meaning
            as sRGB (CMYK, transparency, floating point).
    """
    file, frame = split_frame(path)
    if file.suffix.lower() == dicom.SUFFIX:
        try:
            return dicom.read_frame(file, frame)
        except dicom.DicomError as error:
            raise ImageReadError(str(error)) from error
    return np.array(_to_rgb(open_image(path), path))


def split_frame(path: str | Path) -> tuple[Path, int | None]:
    """The file of an image, and the number of the frame, where a DICOM file has several: ``FILE.dcm#3``."""
    found = re.fullmatch(rf"(.+{re.escape(dicom.SUFFIX)})#(\d+)", str(path), re.IGNORECASE)
    return (Path(found.group(1)), int(found.group(2))) if found else (Path(path), None)


def frame_names(path: Path) -> list[str]:
    """Names of the images in a file, for :func:`read_array`: its own, or those of the frames of a DICOM file.

    Raises:
        ImageReadError: If a DICOM file cannot be read.
    """
    if path.suffix.lower() != dicom.SUFFIX:
        return [str(path)]
    try:
        number = dicom.number_of_frames(path)
    except dicom.DicomError as error:
        raise ImageReadError(str(error)) from error
    return [str(path)] if number == 1 else [f"{path}#{frame}" for frame in range(number)]


def find_partner(path: Path, root: Path, partner_root: Path) -> Path | None:
    """Find the file of the same relative name, with any image suffix, in a parallel folder.

    Args:
        path: File below ``root``.
        root: Folder of ``path``.
        partner_root: Parallel folder.

    Returns:
        The partner, or ``None`` if there is none.
    """
    stem = partner_root / path.relative_to(root)
    candidates = [stem, *(stem.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def open_image(path: str | Path) -> PILImage.Image:
    """Open an image of any colour mode, and turn it as its EXIF orientation says.

    Args:
        path: Image file.

    Raises:
        ImageReadError: If the file is missing, truncated or no image.
    """
    try:
        image = PILImage.open(path)
        image.load()
        return ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        msg = f"{path}: no such image."
        raise ImageReadError(msg) from error
    except UnidentifiedImageError as error:
        msg = f"{path}: not an image; remove it or take it out of the split."
        raise ImageReadError(msg) from error
    except (OSError, SyntaxError, PILImage.DecompressionBombError) as error:
        msg = f"{path}: damaged or truncated image ({error}); copy it again or take it out of the split."
        raise ImageReadError(msg) from error


def _to_rgb(image: PILImage.Image, path: str | Path) -> PILImage.Image:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in {"RGB", "L", "P", "1"}:
        return image.convert("RGB")
    if image.mode in {"RGBA", "LA"}:
        if image.getchannel("A").getextrema()[0] == 255:
            return image.convert("RGB")
        msg = f"{path}: has transparent pixels, whose colour is undefined; flatten it onto a background first."
        raise ImageReadError(msg)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.getextrema()[1] > 255):
        scaled = (np.asarray(image, dtype=np.float32) / 65535 * 255).round().clip(0, 255).astype(np.uint8)
        return PILImage.fromarray(scaled).convert("RGB")
    msg = f"{path}: colour mode {image.mode} has no clear meaning as sRGB; convert it to an RGB image first."
    raise ImageReadError(msg)
