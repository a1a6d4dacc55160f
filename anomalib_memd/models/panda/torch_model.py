"""PyTorch models that adapt pretrained features to normal images."""

from pathlib import Path

import torch
from kornia import augmentation
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import build_backbone, keep_statistics, normalization
from anomalib_memd.components.one_class import NearestVectors
from anomalib_memd.models.trained import VectorNetwork


class PANDAModel(VectorNetwork):
    r"""Pooled features of the deepest layer, drawn to their mean before the training.

    .. math::
        L = \|\phi(x) - c\|^2, \qquad \text{score} = \text{mean squared distance to the nearest normal } \phi

    The centre :math:`c` does not move, and the statistics of the batch normalisation stay. Only the last two stages
    of the backbone learn.

    Args:
        backbone: Name of a timm model.
        layer: Its deepest layer.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        neighbours: Number of neighbours.

    Source:
        Reiss et al., "PANDA: Adapting Pretrained Features for Anomaly Detection and Segmentation", CVPR 2021. Its code
        is for research only; none of it is used here.
    """

    unit = False

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        layer: str = "layer4",
        weights: str | Path | None = None,
        neighbours: int = 2,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, [layer], weights=weights, requires_grad=True)
        stages = [stage["module"] for stage in self.backbone.feature_extractor.feature_info.info]
        kept = stages[max(0, stages.index(layer) - 2)]
        names, values = zip(*self.backbone.feature_extractor.named_parameters(), strict=True)
        # timm flattens the names of some networks: 'stages.3.0' becomes 'stages_3.0'.
        last = max(place for place, name in enumerate(names) if name.replace("_", ".").startswith(f"{kept}."))
        for value in values[: last + 1]:
            value.requires_grad_(False)
        channels = self.backbone.out_dims[0]
        self.register_buffer("centre", torch.zeros(channels))
        self.centre: torch.Tensor
        self.density = NearestVectors(channels, neighbours, self.unit)

    def train(self, mode: bool = True) -> "PANDAModel":
        """Training never changes the statistics of the batch normalisation."""
        super().train(mode)
        keep_statistics(self)
        return self

    def vectors(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features ``(B, C)`` of normalised images ``(B, 3, H, W)``."""
        return next(iter(self.backbone(images).values())).mean((-2, -1))

    def fit_centre(self, vectors: torch.Tensor) -> None:
        """Take over the mean of the vectors ``(N, C)`` of all normal images."""
        self.centre.copy_(vectors.mean(0))

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Squared distance from the centre."""
        return (self.vectors(images) - self.centre).square().sum(1).mean()


class MeanShiftedModel(PANDAModel):
    r"""The same features of length 1, seen from their mean, and contrasted between two augmentations.

    .. math::
        \theta(x) = \frac{\phi(x) / |\phi(x)| - c}{|\phi(x) / |\phi(x)| - c|}, \quad
        L = -\log \frac{\exp(\theta_i \cdot \theta_i' / \tau)}{\sum_{k \ne i} \exp(\theta_i \cdot \theta_k / \tau)}

    where :math:`k` runs over both views of all images of the batch. Neighbours are those by cosine.

    Args:
        *args: See :class:`PANDAModel`.
        temperature: Temperature :math:`\tau`.
        **kwargs: Likewise.

    Source:
        Reiss and Hoshen, "Mean-Shifted Contrastive Loss for Anomaly Detection", AAAI 2023. Its code is for research
        only; none of it is used here. Augmentations are those of SimCLR.
    """

    unit = True

    def __init__(self, *args: object, temperature: float = 0.25, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.temperature = temperature
        mean, std = (torch.tensor(values)[:, None, None] for values in normalization(self.backbone))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def augment(self, images: torch.Tensor) -> torch.Tensor:
        """Another view of each image, all ``(B, 3, H, W)`` and normalised."""
        size = images.shape[-2], images.shape[-1]
        views = augmentation.AugmentationSequential(
            augmentation.RandomResizedCrop(size, scale=(0.2, 1.0)),
            augmentation.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
            augmentation.RandomGrayscale(p=0.2),
            augmentation.RandomGaussianBlur((5, 5), (0.1, 2.0), p=0.5),
            augmentation.RandomHorizontalFlip(p=0.5),
        )
        return (views((images * self.std + self.mean).clamp(0, 1)) - self.mean) / self.std

    def fit_centre(self, vectors: torch.Tensor) -> None:
        """Take over the mean of the vectors ``(N, C)`` of all normal images, each of length 1."""
        super().fit_centre(F.normalize(vectors, dim=1))

    def shifted(self, images: torch.Tensor) -> torch.Tensor:
        """Directions ``(B, C)`` in which the vectors lie from the centre."""
        return F.normalize(F.normalize(self.vectors(images), dim=1) - self.centre, dim=1)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Contrast of two views."""
        first, second = (self.shifted(self.augment(images)) for _ in range(2))
        return contrastive_loss(first, second, self.temperature)


def contrastive_loss(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding the other view of an image among both views of all others.

    Args:
        first: Vectors of length 1 of one view, ``(B, C)``.
        second: Those of the other view.
        temperature: What cosines are divided by.

    Source:
        Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
    """
    both = torch.cat([first, second])
    similar = both @ both.T / temperature
    own = torch.eye(len(both), dtype=torch.bool, device=both.device)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return F.cross_entropy(similar.masked_fill(own, float("-inf")), partner)
