"""PyTorch model of CutPaste."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import build_backbone, normalization
from anomalib_memd.components.negatives.drawing import new_generator
from anomalib_memd.components.one_class import GaussianDensity
from anomalib_memd.models.trained import VectorNetwork

from .draw import cut_and_paste, open_tissue, scar


class CutPasteModel(VectorNetwork):
    """A backbone and a head that tell three classes: normal, with a patch, with a scar. The loss is cross-entropy.

    An image is scored by the Gaussian density of the pooled features of normal ones.

    Args:
        backbone: Name of a timm model.
        layer: Its deepest layer.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        anatomical: Whether patches lie on tissue alone: inside the field of view, and not on glare.
        hidden: Number of channels of each hidden layer of the head.

    Source:
        Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021; the
        anatomical variant: Sato et al., "Anatomy-aware Self-supervised Learning for Anomaly Detection in Chest
        Radiographs", iScience 2023.
    """

    def __init__(
        self,
        backbone: str = "resnet18.tv_in1k",
        layer: str = "layer4",
        weights: str | Path | None = None,
        anatomical: bool = False,
        hidden: tuple[int, ...] = (512, 128),
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, [layer], weights=weights, requires_grad=True)
        self.anatomical = anatomical
        mean, std = (torch.tensor(values)[:, None, None] for values in normalization(self.backbone))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        channels = self.backbone.out_dims[0]
        layers: list[nn.Module] = []
        for low, high in zip((channels, *hidden), hidden, strict=False):
            layers += [nn.Linear(low, high, bias=False), nn.BatchNorm1d(high), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(hidden[-1], 3))
        self.density = GaussianDensity(channels)

    def vectors(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features ``(B, C)`` of normalised images ``(B, 3, H, W)``."""
        return next(iter(self.backbone(images).values())).mean((-2, -1))

    def draw(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images with a patch, and with a scar, of normalised images, all ``(B, 3, H, W)``."""
        visible = (images * self.std + self.mean).clamp(0, 1).cpu()
        allowed = open_tissue(visible) if self.anatomical else [None] * len(visible)
        drawn = []
        for paste in (cut_and_paste, scar):
            random = new_generator()
            pasted = [paste(image, random, place).image for image, place in zip(visible, allowed, strict=True)]
            drawn.append((torch.stack(pasted).to(images) - self.mean) / self.std)
        return drawn[0], drawn[1]

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over three classes of equal size."""
        every = torch.cat([images, *self.draw(images)])
        classes = torch.arange(3, device=images.device).repeat_interleave(len(images))
        return F.cross_entropy(self.head(self.vectors(every)), classes)
