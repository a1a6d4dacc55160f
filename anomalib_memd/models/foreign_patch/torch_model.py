"""PyTorch model that finds foreign patches."""

from collections.abc import Sequence

import torch
from anomalib.data import InferenceBatch
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.negatives.drawing import new_generator
from anomalib_memd.components.similarity import image_score
from anomalib_memd.components.unet import UNet
from anomalib_memd.models.trained import OneClassNetwork

from .blend import KINDS


class ForeignPatchModel(OneClassNetwork):
    r"""A U-shaped network :math:`u` that regresses how foreign each pixel is.

    .. math::
        L = -\overline{t \log u(\tilde x) + (1 - t) \log(1 - u(\tilde x))}

    with the blended image :math:`\tilde x` and its target :math:`t`. Another image of the batch is the donor.

    Args:
        kind: How patches are blended, one of :data:`~.blend.KINDS`.
        mean: What images were centred by, for each channel.
        std: What they were divided by.
        widths: Number of channels of each level of the network.

    Source:
        See :mod:`.blend`.
    """

    def __init__(
        self, kind: str, mean: Sequence[float], std: Sequence[float], widths: Sequence[int] = (32, 64, 128, 256)
    ) -> None:
        super().__init__()
        self.blend = KINDS[kind]
        self.network = UNet(3, 1, widths)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def draw(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Blended images and targets ``(B, 1, H, W)`` of normalised images ``(B, 3, H, W)``."""
        visible = (images * self.std + self.mean).clamp(0, 1).cpu()
        random = new_generator()
        blends = [self.blend(image, donor, random) for image, donor in zip(visible, visible.roll(1, 0), strict=True)]
        blended = torch.stack([blend.image for blend in blends]).to(images)
        return (blended - self.mean) / self.std, torch.stack([blend.target for blend in blends])[:, None].to(images)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each pixel, see the class."""
        blended, target = self.draw(images)
        return F.binary_cross_entropy_with_logits(self.network(blended), target)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the mean of what the network says of each pixel."""
        anomaly_map = self.network(images).sigmoid()
        return InferenceBatch(pred_score=image_score(anomaly_map, "mean"), anomaly_map=anomaly_map)
