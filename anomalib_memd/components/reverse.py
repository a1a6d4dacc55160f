"""Parts of methods that reconstruct the features of a ResNet with a mirrored decoder."""

from pathlib import Path

import torch
from anomalib.models.components import TimmFeatureExtractor
from anomalib.models.components.backbone import get_decoder
from anomalib.models.image.reverse_distillation.components.bottleneck import get_bottleneck_layer
from torch import nn

from .backbones import BackboneError, build_backbone, keep_statistics

LAYERS = ("layer1", "layer2", "layer3")
"""The scales that are reconstructed."""


def architecture(backbone: str) -> str:
    """Name of a ResNet without that of its weights.

    Raises:
        BackboneError: If it is no ResNet that has a mirror image.
    """
    name = backbone.split(".", maxsplit=1)[0]
    if name not in {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2"}:
        msg = f"{backbone} has no mirrored decoder; take a ResNet, such as resnet50.tv_in1k or wide_resnet50_2."
        raise BackboneError(msg)
    return name


def build_decoder(backbone: str) -> nn.Module:
    """Mirror image of a ResNet: from the grid of ``layer4`` to maps like those of ``layer1`` to ``layer3``.

    Source:
        Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022; anomalib's.
    """
    return get_decoder(architecture(backbone))


def build_bottleneck(backbone: str) -> nn.Module:
    """One-class embedding of the maps of three layers on the grid of ``layer4``, see :func:`build_decoder`."""
    return get_bottleneck_layer(architecture(backbone))


class LearningEncoder(nn.Module):
    """A pretrained ResNet that learns, with the statistics of its batch normalisation left as they were.

    Args:
        backbone: Name of a timm ResNet.
        layers: Layers whose maps are taken.
        weights: See :func:`~.backbones.build_backbone`.
    """

    def __init__(self, backbone: str, layers: tuple[str, ...], weights: str | Path | None) -> None:
        super().__init__()
        self.extractor: TimmFeatureExtractor = build_backbone(backbone, layers, weights=weights, requires_grad=True)
        self.train()

    def train(self, mode: bool = True) -> "LearningEncoder":
        """Training never changes the statistics."""
        super().train(mode)
        keep_statistics(self)
        return self

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps ``(B, C_i, h_i, w_i)`` of normalised images ``(B, 3, H, W)``, the finest first."""
        return list(self.extractor(images).values())
