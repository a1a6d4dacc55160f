"""PyTorch model of the feature autoencoder."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.similarity import SummedMap, image_score, structural_distance
from anomalib_memd.models.trained import OneClassNetwork

WINDOW = 5
"""Side of the window of the structural similarity, in locations."""


class FeatureLoss(StrEnum):
    """How far features are from their reconstruction."""

    SSIM = "ssim"
    """By structural similarity in windows of 5 x 5."""
    MSE = "mse"
    """By the squared error."""


class FeatureAutoEncoderModel(OneClassNetwork):
    r"""Frozen features :math:`f` of a few layers on one grid, and a convolutional autoencoder :math:`A` of them.

    .. math::
        L = \mathrm{mean} \; d(f(x), A(f(x))), \qquad \text{map} = \text{mean of } d \text{ over channels}

    Args:
        backbone: Name of a timm model.
        layers: Its layers; the grid is that of the second finest.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        loss: The distance :math:`d`.
        widths: Number of channels of each strided convolution.
        dropout: Share of channels that are left out in training.

    Source:
        Meissen et al., "Unsupervised Anomaly Localization with Structural Feature-Autoencoders", BrainLes 2022.
    """

    def __init__(
        self,
        backbone: str = "resnet18.tv_in1k",
        layers: Sequence[str] = ("act1", "layer1", "layer2"),
        weights: str | Path | None = None,
        loss: FeatureLoss | str = FeatureLoss.SSIM,
        widths: Sequence[int] = (100, 150, 200, 300),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, layers, weights=weights)
        self.kind = FeatureLoss(loss)
        channels = sum(self.backbone.out_dims)
        down = [_block(nn.Conv2d, *pair, dropout) for pair in pairwise([channels, *widths])]
        up = [_block(nn.ConvTranspose2d, *pair, dropout) for pair in pairwise([*reversed(widths), widths[0]])]
        self.autoencoder = nn.Sequential(*down, *up, nn.Conv2d(widths[0], channels, 1))
        self.summed = SummedMap(sigma=0)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Joined features ``(B, C, h, w)`` of normalised images ``(B, 3, H, W)``."""
        maps = list(self.backbone(images).values())
        grid = sorted((m.shape[-2:] for m in maps), reverse=True)[min(1, len(maps) - 1)]
        return torch.cat([F.interpolate(m, grid, mode="bilinear") for m in maps], dim=1)

    def distance(self, features: torch.Tensor) -> torch.Tensor:
        """Distance of features from their reconstruction, both ``(B, C, h, w)``."""
        made = self.autoencoder(features)
        made = F.interpolate(made, features.shape[-2:], mode="bilinear") if made.shape != features.shape else made
        if self.kind is FeatureLoss.MSE:
            return (features - made).square()
        return structural_distance(features, made, WINDOW)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Mean distance over channels and locations."""
        return self.distance(self.features(images)).mean()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the mean of the distance."""
        distance = self.distance(self.features(images)).mean(1, keepdim=True)
        anomaly_map = self.summed([distance], images.shape[-2:])
        return InferenceBatch(pred_score=image_score(distance, "mean"), anomaly_map=anomaly_map)


def _block(convolution: type[nn.Conv2d] | type[nn.ConvTranspose2d], low: int, high: int, dropout: float) -> nn.Module:
    extra = {"output_padding": 1} if convolution is nn.ConvTranspose2d else {}
    layer = convolution(low, high, 5, stride=2, padding=2, bias=False, **extra)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.BatchNorm2d(high), nn.LeakyReLU(), nn.Dropout2d(dropout))
