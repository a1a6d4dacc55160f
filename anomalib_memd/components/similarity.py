"""How far maps of features or pixels are from their reconstructions.

Cosines are computed in 32 bits, whatever precision the maps have: in 16 bits one minus a cosine has two digits.
"""

from collections.abc import Sequence

import torch
from anomalib.models.components import GaussianBlur2d
from kornia.metrics import ssim
from torch import nn
from torch.nn import functional as F  # noqa: N812


def cosine_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """One minus the cosine between the channels of two maps ``(B, C, h, w)``, at each location: ``(B, 1, h, w)``."""
    return 1 - F.cosine_similarity(first.float(), second.float(), dim=1).unsqueeze(1)


def flattened_cosine_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """One minus the cosine between two whole maps ``(B, C, h, w)``, each taken as one vector: ``(B,)``.

    Source:
        Guo et al., "ReContrast: Domain-Specific Anomaly Detection via Contrastive Reconstruction", NeurIPS 2023,
        equation 3, where it is called global cosine distance.
    """
    return 1 - F.cosine_similarity(first.flatten(1).float(), second.flatten(1).float(), dim=1)


def structural_distance(first: torch.Tensor, second: torch.Tensor, window: int, span: float = 1.0) -> torch.Tensor:
    r"""Half of one minus the structural similarity of two maps, at each location and channel.

    .. math::
        \tfrac12 (1 - \mathrm{SSIM}), \quad \mathrm{SSIM} =
        \frac{(2\mu_x\mu_y + c_1)(2\sigma_{xy} + c_2)}{(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}

    Args:
        first: Map of shape ``(B, C, h, w)``.
        second: Map of the same shape.
        window: Side of the Gaussian window, in locations.
        span: Range of the values, from which :math:`c_1` and :math:`c_2` follow.

    Returns:
        Shape ``(B, C, h, w)``, in [0, 1].

    Source:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004.
    """
    return (1 - ssim(first, second, window, max_val=span)) / 2


class SummedMap(nn.Module):
    """Sum of the distances of several scales, enlarged and smoothed.

    Args:
        sigma: Deviation of the Gaussian that smooths, in pixels of the image; 0 for none.
    """

    def __init__(self, sigma: float = 4.0) -> None:
        super().__init__()
        self.blur = GaussianBlur2d(sigma=(sigma, sigma), kernel_size=2 * int(4 * sigma + 0.5) + 1) if sigma else None

    def forward(self, distances: Sequence[torch.Tensor], size: Sequence[int] | torch.Size) -> torch.Tensor:
        """Sum maps.

        Args:
            distances: Maps of shapes ``(B, 1, h_i, w_i)``.
            size: Height and width of the result, in pixels.

        Returns:
            Shape ``(B, 1, height, width)``.
        """
        enlarged = [F.interpolate(d, tuple(size), mode="bilinear", align_corners=False) for d in distances]
        total = torch.stack(enlarged).sum(0)
        return total if self.blur is None else self.blur(total)


def image_score(anomaly_map: torch.Tensor, reduction: str) -> torch.Tensor:
    """Score ``(B,)`` of images from their maps ``(B, 1, H, W)``: the ``max`` or the ``mean`` of all pixels.

    Raises:
        ValueError: If the reduction is neither.
    """
    if reduction not in {"max", "mean"}:
        msg = f"The score of an image is the max or the mean of its map, not the '{reduction}'."
        raise ValueError(msg)
    flat = anomaly_map.flatten(1)
    return flat.mean(1) if reduction == "mean" else flat.amax(1)
