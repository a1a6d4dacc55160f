"""PyTorch model of SimpleNet."""

from collections.abc import Sequence
from pathlib import Path

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.similarity import SummedMap, image_score
from anomalib_memd.models.trained import OneClassNetwork

MARGIN = 0.5
"""How far from 0 the discriminator has to come on either side."""


class SimpleNetModel(OneClassNetwork):
    r"""An adaptor :math:`G` of frozen features :math:`o`, and a discriminator :math:`D` of single locations.

    .. math::
        L = \max(0, m - D(q)) + \max(0, m + D(q + \epsilon)), \quad q = G(o), \; \epsilon \sim N(0, \sigma^2)

    The features are averaged over 3 x 3 locations, brought to the grid of the finest layer and joined.

    Args:
        backbone: Name of a timm model.
        layers: Its layers, the finest first.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        noise: Deviation :math:`\sigma`, in units of the adapted features.
        hidden: Number of hidden channels of the discriminator.

    Source:
        Liu et al., "SimpleNet: A Simple Network for Image Anomaly Detection and Localization", CVPR 2023.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2.tv_in1k",
        layers: Sequence[str] = ("layer2", "layer3"),
        weights: str | Path | None = None,
        noise: float = 0.015,
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, layers, weights=weights)
        channels = sum(self.backbone.out_dims)
        self.adaptor = nn.Conv2d(channels, channels, 1)
        nn.init.xavier_normal_(self.adaptor.weight)
        self.discriminator = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, 1, 1, bias=False),
        )
        self.noise = noise
        self.summed = SummedMap()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Joined features ``(B, C, h, w)`` of normalised images ``(B, 3, H, W)``, before they are adapted."""
        maps = [F.avg_pool2d(m, 3, stride=1, padding=1) for m in self.backbone(images).values()]
        grid = maps[0].shape[-2:]
        return torch.cat([maps[0], *(F.interpolate(m, grid, mode="bilinear") for m in maps[1:])], dim=1)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Truncated L1 loss over all locations, see the class."""
        adapted = self.adaptor(self.features(images))
        noisy = adapted + self.noise * torch.randn_like(adapted)
        normal, abnormal = self.discriminator(torch.cat([adapted, noisy])).chunk(2)
        return F.relu(MARGIN - normal).mean() + F.relu(MARGIN + abnormal).mean()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by what the discriminator says of each location, and of the most abnormal one."""
        distance = -self.discriminator(self.adaptor(self.features(images)))
        anomaly_map = self.summed([distance], images.shape[-2:])
        return InferenceBatch(pred_score=image_score(distance, "max"), anomaly_map=anomaly_map)
