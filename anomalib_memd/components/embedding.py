"""What every branch of MEMD looks at: features of an image, and of the same image at half its size."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from anomalib.models.components import TimmFeatureExtractor
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.modality import Modality

from .statistics import global_statistics


class ImageFeatures(NamedTuple):
    """Backbone features of images."""

    map: torch.Tensor
    """Of each location, ``(B, C, h, w)``."""
    overview: torch.Tensor | None = None
    """The same of the image at half its size, on a grid of half the sides, where that is asked for.

    There a lesion fills more of what a location sees."""

    @property
    def maps(self) -> tuple[torch.Tensor, ...]:
        """The maps of all sizes, the full one first; there are S."""
        return (self.map,) if self.overview is None else (self.map, self.overview)

    @property
    def statistics(self) -> torch.Tensor:
        """Deviations of all channels over the locations, at each size: ``(B, S, C)``."""
        return torch.stack([global_statistics(part) for part in self.maps], dim=1)

    def of(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "ImageFeatures":
        """What a function makes of each of both."""
        return ImageFeatures(*(None if part is None else function(part) for part in self))

    @classmethod
    def joined(cls, batches: Iterable["ImageFeatures"]) -> "ImageFeatures":
        """Several batches as one."""
        maps, overviews = zip(*batches, strict=True)
        return cls(torch.cat(maps), None if overviews[0] is None else torch.cat(overviews))


Features = Mapping[Modality, ImageFeatures]
"""Backbone features of each modality."""


def in_float32(features: Features) -> Features:
    """The same features in 32 bits."""
    return {modality: part.of(torch.Tensor.float) for modality, part in features.items()}


class FeatureEmbedding(nn.Module):
    """Features of several backbone layers, locally averaged and brought to one grid, as in PatchCore.

    The grid is that of the deepest layer, on which attention and heads cost a quarter of what they would
    on the one before.

    Args:
        backbone: Feature extractor of the images.
        overview: Whether to look at each image at half its size too.
        smoothing: Side of the square over which features are averaged, in cells of their own layer.

    Source:
        Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, section 3.1.
    """

    def __init__(self, backbone: TimmFeatureExtractor, overview: bool = False, smoothing: int = 3) -> None:
        super().__init__()
        self.overview = overview
        # The order in which processors convolve fastest.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.pool = nn.AvgPool2d(smoothing, stride=1, padding=smoothing // 2)
        self.channels: int = sum(backbone.out_dims)

    def forward(self, image: torch.Tensor) -> ImageFeatures:
        """Embed images.

        Args:
            image: Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            Features, where ``C`` sums the channels of all layers and ``h x w`` is the grid of the deepest one.
        """
        if not self.overview:
            return ImageFeatures(self.map(image))
        # Between pixels: the mean of two by two.
        half = F.interpolate(image, [side // 2 for side in image.shape[-2:]], mode="bilinear", align_corners=False)
        return ImageFeatures(self.map(image), self.map(half))

    def map(self, image: torch.Tensor) -> torch.Tensor:
        """Features ``(B, C, h, w)`` of images at their own size."""
        return self.merge(self.backbone(image.contiguous(memory_format=torch.channels_last)))

    def merge(self, features: Mapping[str | int, torch.Tensor]) -> torch.Tensor:
        """Average, resample and concatenate the maps of the layers, each of shape ``(B, C_i, h_i, w_i)``."""
        # Averages are taken several times as fast with channels last.
        ordered = (feature.contiguous(memory_format=torch.channels_last) for feature in features.values())
        maps: Sequence[torch.Tensor] = [self.pool(feature) for feature in ordered]
        grid = min((feature.shape[-2:] for feature in maps), key=lambda size: size[0] * size[1])
        return torch.cat([F.interpolate(m, grid, mode="area") if m.shape[-2:] != grid else m for m in maps], dim=1)

    def digest(self) -> str:
        """Digest of all that features depend on besides the image: weights, layers, smoothing and sizes."""
        digest = hashlib.sha256(f"{self.backbone.layers} {self.pool} {'map' if self.overview else False}".encode())
        for name, value in self.backbone.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
