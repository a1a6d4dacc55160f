"""Where in a frame something abnormal is, as boxes and as a picture."""

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw
from skimage.measure import label, regionprops

from anomalib_memd.deployment.stream import FramePrediction

OPACITY = 0.4
"""Of the heat map over the frame, where it stands at half of its range; normal tissue keeps its colours."""
SMALLEST = 1e-3
"""Share of the frame below which a region gets no box: maps are too coarse for it."""
LINE = (255, 255, 255)
"""Colour of the boxes."""


class Box(NamedTuple):
    """A rectangle in a frame, in pixels; ``right`` and ``bottom`` lie outside."""

    left: int
    top: int
    right: int
    bottom: int


def label_of(score: float, threshold: float) -> str:
    """Label by a threshold of the user's choice, or of a score that was smoothed."""
    return "abnormal" if score >= threshold else "normal"


def find_boxes(mask: np.ndarray, size: tuple[int, int]) -> list[Box]:
    """Boxes around the connected regions of a mask, the largest first.

    Args:
        mask: Where the map reaches its threshold, boolean ``(h, w)``.
        size: Height and width of the frame, which the boxes are for.
    """
    down, across = size[0] / mask.shape[0], size[1] / mask.shape[1]
    regions = [region for region in regionprops(label(mask)) if region.area >= SMALLEST * mask.size]
    regions.sort(key=lambda region: -region.area)
    return [
        Box(
            int(np.floor(region.bbox[1] * across)),
            int(np.floor(region.bbox[0] * down)),
            int(np.ceil(region.bbox[3] * across)),
            int(np.ceil(region.bbox[2] * down)),
        )
        for region in regions
    ]


def draw_prediction(
    image: np.ndarray, prediction: FramePrediction, opacity: float = OPACITY, text: str = ""
) -> np.ndarray:
    """Draw the heat map and the boxes of the regions over a frame.

    Args:
        image: sRGB of 8 bits, ``(H, W, 3)``.
        prediction: What a student made of it.
        opacity: Of the heat map, in [0, 1], see :data:`OPACITY`.
        text: A line in the upper left corner.

    Returns:
        Array as ``image``.
    """
    height, width = image.shape[:2]
    if opacity:  # Most frames of a video are drawn without.
        small = Image.fromarray(np.round(prediction.anomaly_map.astype(np.float32) * 255).astype(np.uint8))
        heat = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
        colours = mpl.colormaps["turbo"](heat)[..., :3] * 255
        share = np.clip(2 * opacity * heat / 255, 0, 1)[..., None]
        image = (share * colours + (1 - share) * image).round().astype(np.uint8)
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for box in find_boxes(prediction.mask, (height, width)):
        draw.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), outline=LINE, width=max(1, width // 200))
    if text:
        place, scale = (width // 60, height // 60), max(10, height // 24)
        draw.text(place, text, fill=LINE, font_size=scale, stroke_width=max(1, scale // 12), stroke_fill=(0, 0, 0))
    return np.asarray(picture)


def save_picture(image: np.ndarray, path: Path) -> None:
    """Save a picture as JPEG.

    Args:
        image: sRGB of 8 bits, ``(H, W, 3)``.
        path: The file.
    """
    Image.fromarray(image).save(path, quality=92)
