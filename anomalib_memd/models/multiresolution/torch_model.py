"""PyTorch model of multiresolution knowledge distillation."""

from collections.abc import Sequence
from itertools import pairwise
from math import log2
from pathlib import Path

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.similarity import SummedMap, cosine_distance, flattened_cosine_distance
from anomalib_memd.models.trained import OneClassNetwork


class Clone(nn.Module):
    """A small network with maps of the sizes and widths of some layers of a larger one.

    Each layer is a convolution to few channels, one to the width of the teacher, and the pooling that its grid needs.

    Args:
        widths: Number of channels of each layer.
        reductions: Side of the image over that of each layer's grid, powers of 2.
        narrow: Number of channels in between.
    """

    def __init__(self, widths: Sequence[int], reductions: Sequence[int], narrow: int = 32) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for (low, high), (before, after) in zip(pairwise([3, *widths]), pairwise([1, *reductions]), strict=True):
            layers: list[nn.Module] = [nn.Conv2d(low, narrow, 3, padding=1), nn.ReLU()]
            for _ in range(round(log2(after / before))):
                layers += [nn.MaxPool2d(2), nn.Conv2d(narrow, narrow, 3, padding=1), nn.ReLU()]
            self.stages.append(nn.Sequential(*layers, nn.Conv2d(narrow, high, 3, padding=1), nn.ReLU()))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps ``(B, C_i, h_i, w_i)`` of images ``(B, 3, H, W)``."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class MultiresolutionKDModel(OneClassNetwork):
    r"""A frozen teacher :math:`T` and its clone :math:`S`.

    .. math::
        L = \sum_k \lambda \, \overline{(T_k - S_k)^2} + 1 - \cos(T_k, S_k), \qquad \lambda = 0.01

    with each map taken as one vector. :math:`L` of an image is its score. The map is that of both distances at each
    location, summed over layers; the paper takes the gradient of :math:`L`, which exported graphs do not have.

    Args:
        backbone: Name of a timm model.
        layers: Its layers that are cloned.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.

    Source:
        Salehi et al., "Multiresolution Knowledge Distillation for Anomaly Detection", CVPR 2021.
    """

    WEIGHT = 0.01

    def __init__(
        self,
        backbone: str = "vgg16.tv_in1k",
        layers: Sequence[str] = ("features.8", "features.15", "features.22", "features.29"),
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.teacher = build_backbone(backbone, layers, weights=weights)
        self.student = Clone(self.teacher.out_dims, self.teacher.reductions)
        self.summed = SummedMap()

    def pairs(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Maps of the teacher and of the student, each ``(B, C_i, h_i, w_i)``."""
        return list(zip(self.teacher(images).values(), self.student(images), strict=True))

    def losses(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Loss of each image, ``(B,)``."""
        parts = [
            self.WEIGHT * (teacher - student).square().mean((1, 2, 3)) + flattened_cosine_distance(teacher, student)
            for teacher, student in pairs
        ]
        return torch.stack(parts).sum(0)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Mean loss of normal images."""
        return self.losses(self.pairs(images)).mean()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by their loss."""
        pairs = self.pairs(images)
        distances = [self.WEIGHT * (t - s).square().mean(1, keepdim=True) + cosine_distance(t, s) for t, s in pairs]
        anomaly_map = self.summed(distances, images.shape[-2:])
        return InferenceBatch(pred_score=self.losses(pairs), anomaly_map=anomaly_map)
