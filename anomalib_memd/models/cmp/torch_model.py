"""PyTorch model of CMP."""

from pathlib import Path

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.negatives.drawing import new_generator
from anomalib_memd.components.one_class import GaussianDensity
from anomalib_memd.components.similarity import SummedMap
from anomalib_memd.models.trained import VectorNetwork

from .draw import pseudo_lesion


class MaskedPredictor(nn.Module):
    """Predict each location from others around it, and weigh channels by attention.

    Args:
        channels: Number of channels, in and out.
        reach: How far the kernel reaches, in locations.
        hole: How far from the centre it is 0.

    Source:
        Ristea et al., "Self-Supervised Predictive Convolutional Attentive Block for Anomaly Detection", CVPR 2022; the
        attention: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    def __init__(self, channels: int, reach: int = 2, hole: int = 1) -> None:
        super().__init__()
        self.predict = nn.Conv2d(channels, channels, 2 * reach + 1, padding=reach)
        mask = torch.ones(2 * reach + 1, 2 * reach + 1)
        mask[reach - hole : reach + hole + 1, reach - hole : reach + hole + 1] = 0
        self.register_buffer("mask", mask)
        self.attention = nn.Sequential(
            nn.Conv2d(channels, channels // 8, 1), nn.ReLU(), nn.Conv2d(channels // 8, channels, 1), nn.Sigmoid()
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Predict maps ``(B, C, h, w)``; no location has seen itself."""
        convolution = self.predict
        predicted = F.conv2d(maps, convolution.weight * self.mask, convolution.bias, padding=convolution.padding)  # type: ignore[arg-type]
        predicted = F.relu(predicted)
        return predicted * self.attention(predicted.mean((-2, -1), keepdim=True))


class CMPModel(VectorNetwork):
    r"""A network :math:`f` that tells pseudo-lesions, with maps that are predicted from their surroundings.

    .. math::
        L = \mathrm{CE}(c(\bar p), y) + \lambda \, \overline{(p - f(x))^2}, \qquad p = P(f(x))

    with the predictor :math:`P`, :math:`\bar p` the mean over locations, a linear classifier :math:`c`, and
    :math:`y` whether the image has a pseudo-lesion. The error counts for normal images alone. An image is scored by
    the Gaussian density of :math:`\bar p` of normal ones; the map is the error.

    The method is the subject of a granted Chinese patent, CN117237269B: ask a lawyer before you ship it.

    Args:
        backbone: Name of a timm model.
        layer: Its layer whose maps are predicted.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        error_weight: Weight :math:`\lambda` of the error.

    Source:
        Li et al., IEEE TMI 2024: multi-scale cropping, mixing and pasting, and simple masked attentive predicting.
        Hyper-parameters are open. Here: the last stage but one of a ResNet-18, a kernel of 5 x 5 with a hole of 3 x 3,
        and a weight of 0.1.
    """

    def __init__(
        self,
        backbone: str = "resnet18.tv_in1k",
        layer: str = "layer3",
        weights: str | Path | None = None,
        error_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, [layer], weights=weights, requires_grad=True)
        channels = self.backbone.out_dims[0]
        self.predictor = MaskedPredictor(channels)
        self.classifier = nn.Linear(channels, 2)
        self.error_weight = error_weight
        self.density = GaussianDensity(channels)
        self.summed = SummedMap()

    def predict(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps ``(B, C, h, w)`` of normalised images ``(B, 3, H, W)``, and what is predicted of them."""
        maps = next(iter(self.backbone(images).values()))
        return maps, self.predictor(maps)

    def vectors(self, images: torch.Tensor) -> torch.Tensor:
        """Mean predictions ``(B, C)`` of normalised images ``(B, 3, H, W)``."""
        return self.predict(images)[1].mean((-2, -1))

    def draw(self, images: torch.Tensor) -> torch.Tensor:
        """Images with pseudo-lesions; another image of the batch is the donor."""
        random = new_generator()
        made = [pseudo_lesion(image, donor, random)[0] for image, donor in zip(images, images.roll(1, 0), strict=True)]
        return torch.stack(made)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Cross-entropy and error of the prediction, see the class."""
        maps, predicted = self.predict(torch.cat([images, self.draw(images)]))
        classes = torch.arange(2, device=images.device).repeat_interleave(len(images))
        told = F.cross_entropy(self.classifier(predicted.mean((-2, -1))), classes)
        normal = slice(len(images))
        return told + self.error_weight * F.mse_loss(predicted[normal], maps[normal])

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the density, and locations by the error."""
        maps, predicted = self.predict(images)
        error = (predicted - maps).square().mean(1, keepdim=True)
        score = self.density(predicted.mean((-2, -1)))
        return InferenceBatch(pred_score=score, anomaly_map=self.summed([error], images.shape[-2:]))
