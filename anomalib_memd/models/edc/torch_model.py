"""PyTorch model of encoder-decoder contrast."""

from pathlib import Path

import timm
import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_memd.components.reverse import LAYERS, LearningEncoder, architecture, build_decoder
from anomalib_memd.components.similarity import SummedMap, cosine_distance, flattened_cosine_distance, image_score
from anomalib_memd.models.trained import OneClassNetwork


class EDCModel(OneClassNetwork):
    r"""An encoder :math:`E` and a decoder :math:`D` that reconstructs its maps from the deepest one.

    .. math::
        L = \sum_{k=1}^3 1 - \cos\big(\mathrm{sg}(E_k(x)), D_k(E_4(x))\big)

    with each map taken as one vector, and :math:`\mathrm{sg}` the stop of the gradient: the encoder learns through
    the map that the decoder is given alone.

    Args:
        backbone: Name of a timm ResNet.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        reduction: How the map becomes the score of an image, ``max`` or ``mean``.
        pretrained_deepest: Whether ``layer4`` starts from pretrained weights; without, it learns as the decoder does.

    Source:
        Guo et al., "Encoder-Decoder Contrast for Unsupervised Anomaly Detection in Medical Images", IEEE TMI 2024.
        It leaves open what the encoder's batch normalisation does; here its statistics stay.
    """

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        weights: str | Path | None = None,
        reduction: str = "max",
        pretrained_deepest: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = LearningEncoder(backbone, (*LAYERS, "layer4") if pretrained_deepest else LAYERS, weights)
        self.deepest = (
            nn.Identity() if pretrained_deepest else timm.create_model(architecture(backbone), pretrained=False).layer4
        )
        self.decoder = build_decoder(backbone)
        self.summed = SummedMap()
        self.reduction = reduction

    def reconstruct(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Maps ``(B, C_i, h_i, w_i)`` of the encoder, through which no gradient flows, and their reconstructions."""
        maps = self.encoder(images)
        return [m.detach() for m in maps[: len(LAYERS)]], self.decoder(self.deepest(maps[-1]))

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Distance of the maps from their reconstructions, see the class."""
        pairs = zip(*self.reconstruct(images), strict=True)
        return torch.stack([flattened_cosine_distance(*pair).mean() for pair in pairs]).sum()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the distance at each location, summed over scales."""
        distances = [cosine_distance(*pair) for pair in zip(*self.reconstruct(images), strict=True)]
        anomaly_map = self.summed(distances, images.shape[-2:])
        return InferenceBatch(pred_score=image_score(anomaly_map, self.reduction), anomaly_map=anomaly_map)
