"""The feature map that every branch of MEMD looks at."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from anomalib.models.components import TimmFeatureExtractor
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.modality import Modality

Features = Mapping[Modality, torch.Tensor]
"""Backbone features ``(B, C, H, W)`` of each modality."""


class FeatureEmbedding(nn.Module):
    """Features of several backbone layers, locally averaged and brought to one grid, as in PatchCore.

    The grid is that of the deepest layer, on which attention and heads cost a quarter of what they would
    on the one before.

    Args:
        backbone: Feature extractor of the images.
        smoothing: Side of the square over which features are averaged, in cells of their own layer.

    Source:
        Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, section 3.1.
    """

    def __init__(self, backbone: TimmFeatureExtractor, smoothing: int = 3) -> None:
        super().__init__()
        # The order in which processors convolve fastest.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.pool = nn.AvgPool2d(smoothing, stride=1, padding=smoothing // 2)
        self.channels: int = sum(backbone.out_dims)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images.

        Args:
            image: Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            Features of shape ``(B, C, h, w)``, where ``C`` sums the channels of all layers and ``h x w`` is
            the grid of the deepest one.
        """
        return self.merge(self.backbone(image.contiguous(memory_format=torch.channels_last)))

    def merge(self, features: Mapping[str | int, torch.Tensor]) -> torch.Tensor:
        """Average, resample and concatenate the maps of the layers, each of shape ``(B, C_i, h_i, w_i)``."""
        # Averages are taken several times as fast with channels last.
        ordered = (feature.contiguous(memory_format=torch.channels_last) for feature in features.values())
        maps: Sequence[torch.Tensor] = [self.pool(feature) for feature in ordered]
        grid = min((feature.shape[-2:] for feature in maps), key=lambda size: size[0] * size[1])
        return torch.cat([F.interpolate(m, grid, mode="area") if m.shape[-2:] != grid else m for m in maps], dim=1)

    def digest(self) -> str:
        """Digest of all that features depend on besides the image: weights, layers and smoothing."""
        digest = hashlib.sha256(f"{self.backbone.layers} {self.pool}".encode())
        for name, value in self.backbone.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
