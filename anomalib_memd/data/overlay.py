"""What in an endoscopic frame is no tissue: black borders, and boxes and writing on them."""

import torch
from torch.nn import functional as F  # noqa: N812


def overlay_mask(image: torch.Tensor, darkest: float = 0.06, side: int = 9) -> torch.Tensor:
    """Find black borders, flat boxes, and what is written on them.

    Tissue is neither black nor flat, and fills a square of ``side`` pixels somewhere near; all else is overlay.

    Args:
        image: sRGB images in [0, 1] of shape ``(B, 3, H, W)``.
        darkest: Value that at least one channel of tissue exceeds.
        side: Side of the smallest piece of tissue, in pixels, odd.

    Returns:
        Boolean mask ``(B, 1, H, W)``, true where there is overlay.
    """
    flat = (_dilate(image, 3) + _dilate(-image, 3)).amax(1, keepdim=True) < 0.004
    tissue = ((image.amax(1, keepdim=True) > darkest) & ~flat).to(image.dtype)
    # Closing fills small flat or dark spots in tissue; opening takes away what is too small to be tissue.
    closed = -_dilate(-_dilate(tissue, 5), 5)
    opened = _dilate(-_dilate(-closed, side), side)
    return opened < 0.5


def _dilate(values: torch.Tensor, side: int) -> torch.Tensor:
    """Maximum in a square around each pixel."""
    rows = F.max_pool2d(values, (1, side), 1, (0, side // 2))
    return F.max_pool2d(rows, (side, 1), 1, (side // 2, 0))
