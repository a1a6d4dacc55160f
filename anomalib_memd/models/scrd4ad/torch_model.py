"""PyTorch model of scale-aware contrastive reverse distillation."""

from pathlib import Path

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.negatives.drawing import new_generator, random_place
from anomalib_memd.components.reverse import LAYERS, build_bottleneck, build_decoder
from anomalib_memd.components.similarity import SummedMap, cosine_distance, image_score
from anomalib_memd.components.simplex import fractal_noise
from anomalib_memd.models.trained import OneClassNetwork

OCTAVES, PERSISTENCE, CELL = 6, 0.6, 32.0
STRENGTH = 0.2
"""What the noise is multiplied by, in units of the normalised image."""
SMALLEST, LARGEST_SHARE = 10, 8
"""Side of the noisy patch: from so many pixels to the side of the image over so much."""


class SCRD4ADModel(OneClassNetwork):
    r"""A frozen teacher, and a student that reconstructs its maps for normal images and does not for noisy ones.

    .. math::
        L = \frac{\sum_k w_k(x) \, d(T_k(x), S_k(x))}{\sum_k w_k(x) \, d(T_k(\tilde x), S_k(\tilde x))}

    with :math:`d` the mean over locations of one minus the cosine, :math:`\tilde x` the image with a patch of noise,
    and weights :math:`w_k` that are the softmax of a small network of the image. As published they weigh the terms of
    the loss; in the published code they multiply both arguments of the cosine, and cancel.

    Args:
        backbone: Name of a timm ResNet.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.

    Source:
        Li et al., "Scale-Aware Contrastive Reverse Distillation for Unsupervised Medical Anomaly Detection", ICLR 2025.
        How the network of the weights looks is open; here it is three strided convolutions and a mean.
    """

    def __init__(self, backbone: str = "wide_resnet50_2.tv_in1k", weights: str | Path | None = None) -> None:
        super().__init__()
        self.teacher = build_backbone(backbone, LAYERS, weights=weights)
        self.bottleneck = build_bottleneck(backbone)
        self.decoder = build_decoder(backbone)
        blocks = [
            nn.Sequential(nn.Conv2d(low, high, 3, stride=2, padding=1), nn.BatchNorm2d(high), nn.ReLU())
            for low, high in ((3, 16), (16, 32), (32, 64))
        ]
        self.scale = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(LAYERS)))
        self.summed = SummedMap()

    def distances(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps ``(B, 1, h_i, w_i)`` of the distance between teacher and student, for each scale."""
        teacher = list(self.teacher(images).values())
        return [cosine_distance(*pair) for pair in zip(teacher, self.decoder(self.bottleneck(teacher)), strict=True)]

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Distance for normal images over that for noisy ones, see the class."""
        maps = self.distances(torch.cat([images, add_noise(images)]))
        means = torch.stack([m.mean((1, 2, 3)) for m in maps], dim=1)
        clean, noisy = means.chunk(2)
        weights = self.scale(images).softmax(1)
        return ((weights * clean).sum(1) / (weights * noisy).sum(1).clamp_min(1e-6)).mean()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the mean of the distance, summed over scales."""
        anomaly_map = self.summed(self.distances(images), images.shape[-2:])
        return InferenceBatch(pred_score=image_score(anomaly_map, "mean"), anomaly_map=anomaly_map)


def add_noise(images: torch.Tensor) -> torch.Tensor:
    """Add simplex noise to one rectangle of each image; every draw comes from torch's own generator.

    Args:
        images: Normalised images of shape ``(B, C, H, W)``.

    Returns:
        Noisy images of the same shape.
    """
    noisy = images.clone()
    size = images.shape[-2:]
    for image in noisy:
        random = new_generator()
        sides = [
            int(torch.randint(SMALLEST, max(SMALLEST, side // LARGEST_SHARE) + 1, (), generator=random))
            for side in size
        ]
        top, left = random_place(size, sides, random)
        patch = torch.stack([fractal_noise(sides[0], sides[1], CELL, OCTAVES, PERSISTENCE, random) for _ in image])
        image[:, top : top + sides[0], left : left + sides[1]] += STRENGTH * patch.to(images)
    return noisy
