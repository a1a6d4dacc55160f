"""Reading masks as people have them: two values mean normal and abnormal, whatever they are."""

import logging
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage
from torchvision.tv_tensors import Mask

from .reading import ImageReadError, open_image

logger = logging.getLogger(__name__)


def read_mask(path: str | Path) -> Mask:
    """Read a mask.

    - Of two values or colours the darker one is normal: 0 and 1, 0 and 255, black and red, two colours of a palette.
    - Of a mask whose colour is the same everywhere the opaque part is abnormal.
    - What has one value alone is normal where that is 0 or black, else abnormal.
    - Of more values those above half of their range are abnormal, as at the rims that JPEG makes. This is logged once.

    Args:
        path: Mask file of any colour mode.

    Returns:
        Mask of zeros and ones, ``uint8`` of shape ``(H, W)``.

    Raises:
        ImageReadError: If the file is missing, truncated or no image, or if its two colours are equally bright.
    """
    values = _values(open_image(path))
    flat = values.reshape(-1, values.shape[-1])
    if values.shape[-1] > 1 and not (flat == flat[:, :1]).all():
        abnormal = _of_colours(values, flat, path)
    else:
        abnormal = _of_brightness(values[..., 0])
    return Mask(torch.from_numpy(abnormal.astype(np.uint8)))


def _values(image: PILImage.Image) -> np.ndarray:
    """What tells normal and abnormal pixels apart, ``(H, W, channels)``."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode not in {"LA", "PA", "La", "RGBA", "RGBa"}:
        plain = image if image.mode in {"L", "RGB", "F"} or image.mode.startswith("I") else image.convert("RGB")
        return np.atleast_3d(np.asarray(plain)).astype(np.float64)
    array = np.asarray(image.convert("RGBA")).astype(np.float64)
    colours, alpha = array[..., :3], array[..., 3:]
    if (colours == colours[0, 0]).all() and (alpha != alpha[0, 0]).any():
        return alpha
    return colours * alpha / 255


def _of_brightness(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    if low == high:
        return np.full(values.shape, low != 0)
    if not ((values == low) | (values == high)).all():
        _tell_of_cut()
    return values > (low + high) / 2


def _of_colours(values: np.ndarray, flat: np.ndarray, path: str | Path) -> np.ndarray:
    found = np.unique(flat, axis=0)
    if len(found) != 2:
        return _of_brightness(values.max(-1))
    dark, bright = sorted(found.tolist(), key=sum)
    if sum(dark) == sum(bright):
        msg = f"{path}: its two colours {dark} and {bright} are equally bright; make normal pixels black."
        raise ImageReadError(msg)
    return (values == bright).all(-1)


@cache
def _tell_of_cut() -> None:
    logger.warning("Masks have more than two values: those above half of their range count as abnormal.")
