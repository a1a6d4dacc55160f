"""PyTorch model of reverse distillation with skip connections."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.reverse import LAYERS, build_bottleneck, build_decoder
from anomalib_memd.components.similarity import SummedMap, cosine_distance, image_score
from anomalib_memd.models.trained import OneClassNetwork


class SkipDecoder(nn.Module):
    """A mirrored ResNet whose finer stages are also given the teacher's map of the next coarser scale.

    A map of its own scale would only have to be copied.

    Args:
        backbone: Name of a timm ResNet.
        widths: Number of channels of the teacher's maps, the finest first.
    """

    def __init__(self, backbone: str, widths: Sequence[int]) -> None:
        super().__init__()
        self.decoder = build_decoder(backbone)
        self.skips = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths[1:])

    def forward(self, embedding: torch.Tensor, teacher: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Reconstruct maps.

        Args:
            embedding: Shape ``(B, C, h, w)``, on the grid of ``layer4``.
            teacher: Maps of the teacher, the finest first.

        Returns:
            Maps of the shapes of the teacher's.
        """
        coarse = self.decoder.layer1(embedding)  # type: ignore[operator]
        middle = self.decoder.layer2(coarse + self.skips[1](teacher[2]))  # type: ignore[operator]
        return [self.decoder.layer3(middle + self.skips[0](teacher[1])), middle, coarse]  # type: ignore[operator]


class SkipTSModel(OneClassNetwork):
    r"""A frozen teacher :math:`T` and a decoder :math:`S` with skip connections.

    .. math::
        L = \sum_k \overline{d_k} + 0.05 \sum_k \overline{(d_k - \uparrow d_{k+1})^2}, \quad d_k = 1 - \cos(T_k, S_k)

    Args:
        backbone: Name of a timm ResNet.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.

    Source:
        Liu et al., "Skip-ST: Anomaly Detection for Medical Images Using Student-Teacher Network with Skip Connections",
        ISCAS 2023. It leaves open from where the connections come; see :class:`SkipDecoder`.
    """

    WEIGHT = 0.05

    def __init__(self, backbone: str = "wide_resnet50_2.tv_in1k", weights: str | Path | None = None) -> None:
        super().__init__()
        self.teacher = build_backbone(backbone, LAYERS, weights=weights)
        self.bottleneck = build_bottleneck(backbone)
        self.decoder = SkipDecoder(backbone, self.teacher.out_dims)
        self.summed = SummedMap()

    def distances(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Distance at each location, ``(B, 1, h_i, w_i)``, the finest scale first."""
        teacher = list(self.teacher(images).values())
        made = self.decoder(self.bottleneck(teacher), teacher)
        return [cosine_distance(*pair) for pair in zip(teacher, made, strict=True)]

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Distance and inconsistency, see the class."""
        distances = self.distances(images)
        return torch.stack([d.mean() for d in distances]).sum() + self.WEIGHT * inconsistency(distances)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the most distant location, summed over scales."""
        anomaly_map = self.summed(self.distances(images), images.shape[-2:])
        return InferenceBatch(pred_score=image_score(anomaly_map, "max"), anomaly_map=anomaly_map)


def inconsistency(distances: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean squared difference of each map ``(B, 1, h_i, w_i)`` and the next coarser one, enlarged; summed."""
    parts = [
        F.mse_loss(fine, F.interpolate(coarse, fine.shape[-2:], mode="bilinear"))
        for fine, coarse in pairwise(distances)
    ]
    return torch.stack(parts).sum()
