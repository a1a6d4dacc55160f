"""PyTorch model of contrastive reconstruction."""

from pathlib import Path
from typing import Any

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.reverse import LAYERS, LearningEncoder, build_bottleneck, build_decoder
from anomalib_memd.components.similarity import SummedMap, cosine_distance, flattened_cosine_distance, image_score
from anomalib_memd.models.trained import OneClassNetwork


class ReContrastModel(OneClassNetwork):
    r"""A frozen encoder :math:`F`, a learning one :math:`E`, and one decoder with an output for each.

    What the decoder makes of the learning encoder is compared with the frozen one, and the other way round:

    .. math::
        L = \frac12 \sum_{k=1}^3 d_h\big(F_k(x), D^F_k(E(x))\big) + d_h\big(\mathrm{sg}(E_k(x)), D^E_k(F(x))\big)

    where :math:`d_h` is one minus the cosine of whole maps, the gradient of easy locations stopped (:func:`stop_easy`).
    The outputs are convolutions of 1 x 1.

    Args:
        backbone: Name of a timm ResNet.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        reduction: How the map becomes the score of an image, ``max`` or ``mean``.

    Source:
        Guo et al., "ReContrast: Domain-Specific Anomaly Detection via Contrastive Reconstruction", NeurIPS 2023.
    """

    def __init__(
        self, backbone: str = "wide_resnet50_2.tv_in1k", weights: str | Path | None = None, reduction: str = "max"
    ) -> None:
        super().__init__()
        self.frozen = build_backbone(backbone, LAYERS, weights=weights)
        self.encoder = LearningEncoder(backbone, LAYERS, weights)
        self.encoder.load_state_dict({f"extractor.{k}": v for k, v in self.frozen.state_dict().items()})
        self.bottleneck = build_bottleneck(backbone)
        self.decoder = build_decoder(backbone)
        widths = self.frozen.out_dims
        self.outputs = nn.ModuleDict(
            {name: nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths) for name in ("frozen", "learning")}
        )
        self.summed = SummedMap()
        self.reduction = reduction
        self.factor = 1.0
        """How many deviations above the mean a distance must lie for its location to be hard."""

    def reconstruct(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each of the six maps, through which no gradient flows, with its reconstruction from the other encoder."""
        frozen, learning = list(self.frozen(images).values()), self.encoder(images)
        pairs = []
        for name, target, source in (("frozen", frozen, learning), ("learning", learning, frozen)):
            decoded = self.decoder(self.bottleneck(source))
            outputs: Any = self.outputs[name]
            pairs += [(t.detach(), output(d)) for t, d, output in zip(target, decoded, outputs, strict=True)]
        return pairs

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Distance of the maps from their reconstructions, see the class."""
        pairs = [(target, stop_easy(target, made, self.factor)) for target, made in self.reconstruct(images)]
        return torch.stack([flattened_cosine_distance(*pair).mean() for pair in pairs]).sum() / 2

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the distance at each location, summed over scales and encoders."""
        distances = [cosine_distance(*pair) for pair in self.reconstruct(images)]
        anomaly_map = self.summed(distances, images.shape[-2:])
        return InferenceBatch(pred_score=image_score(anomaly_map, self.reduction), anomaly_map=anomaly_map)


def stop_easy(target: torch.Tensor, made: torch.Tensor, factor: float) -> torch.Tensor:
    """A reconstruction whose gradient is stopped where it is easy.

    Easy is a location whose distance is below the mean of all in the batch plus ``factor`` deviations.

    Args:
        target: Map of shape ``(B, C, h, w)``.
        made: Its reconstruction.
        factor: Number of deviations.

    Returns:
        The values of ``made``.
    """
    distance = cosine_distance(target, made.detach())
    easy = distance < distance.mean() + factor * distance.std()
    return torch.where(easy, made.detach(), made)
