"""Frames that nothing can be said of: dark, blurred, or from outside of the body.

The limits lie outside of what was measured on 240 validation images of three data sets, of colonoscopes and capsules,
in white light and in narrow band light that was made of it. Of colonoscopic frames that were blurred by a Gaussian of a
hundredth of their height, 95 of 100 lie below the limit.
"""

from enum import StrEnum

import numpy as np
from PIL import Image
from skimage.filters import laplace

SIDE = 256
"""Height, in pixels, of the frame that is looked at."""
DARKEST = 0.15
"""Value of the brightest channel that one pixel of twenty exceeds; at least 0.20 in what was measured."""
BLUREST = 0.08
"""Deviation of the Laplacian in those of the grey values; at least 0.086 in what was measured."""
GREYEST = 0.15
"""Median saturation of what is lit; at least 0.18 in what was measured."""


class Defect(StrEnum):
    """Why nothing can be said of a frame."""

    DARK = "dark"
    """The light is off, or the lens lies on the wall."""
    OUTSIDE = "outside"
    """It has no colour: a room, a cloth, water without tissue behind. Tissue is red, or green and blue in narrow band
    light."""
    BLURRED = "blurred"
    """It has no edge: the scope moves, or the lens is wet."""


def find_defect(image: np.ndarray) -> Defect | None:
    """Tell why nothing can be said of a frame; ``None`` if something can.

    Args:
        image: sRGB of 8 bits, ``(H, W, 3)``.
    """
    width = max(1, round(image.shape[1] * SIDE / image.shape[0]))
    by = Image.Resampling.BOX if image.shape[0] > SIDE else Image.Resampling.BILINEAR
    small = Image.fromarray(image).resize((width, SIDE), by)
    values = np.asarray(small, dtype=np.float32) / 255
    brightest, grey = values.max(-1), values.mean(-1)
    if np.percentile(brightest, 95) < DARKEST:
        return Defect.DARK
    lit = (grey > 0.08) & (brightest < 0.97)
    if not lit.any():
        return Defect.OUTSIDE
    saturation = (brightest - values.min(-1))[lit] / brightest[lit]
    if np.median(saturation) < GREYEST:
        return Defect.OUTSIDE
    sharpness = laplace(grey)[lit].std() / max(float(grey[lit].std()), 1e-3)
    return Defect.BLURRED if sharpness < BLUREST else None
