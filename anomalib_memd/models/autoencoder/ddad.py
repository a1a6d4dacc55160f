"""Dual-distribution discrepancy, of normal images alone."""

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import AnomalibModule
from torch import nn
from torch.optim import Adam

from anomalib_memd.components.autoencoder import ConvAutoEncoder
from anomalib_memd.components.similarity import image_score
from anomalib_memd.models.trained import OneClassNetwork, TrainedMixin

from .lightning_model import HALF


class DDADModel(OneClassNetwork):
    r"""Several autoencoders that differ in their beginning alone; where they disagree, the image is abnormal.

    .. math::
        \text{map} = \sqrt{\tfrac1K \sum_k \big(f_k(x) - \bar f(x)\big)^2}, \quad \text{mean over colours}

    Args:
        image_size: Height and width of the images, in pixels.
        networks: Number :math:`K` of autoencoders.

    Source:
        Cai et al., "Dual-distribution Discrepancy for Anomaly Detection in Chest X-rays", MICCAI 2022: the discrepancy
        within normal images, of autoencoders.
    """

    def __init__(self, image_size: Sequence[int] = (64, 64), networks: int = 3) -> None:
        super().__init__()
        self.networks = nn.ModuleList(ConvAutoEncoder(image_size) for _ in range(networks))

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Mean squared error, summed over the networks, which share nothing."""
        return torch.stack([(images - network(images)).square().mean() for network in self.networks]).sum()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the mean of the map."""
        made = torch.stack([network(images) for network in self.networks])
        anomaly_map = made.std(0, correction=0).mean(1, keepdim=True)
        return InferenceBatch(pred_score=image_score(anomaly_map, "mean"), anomaly_map=anomaly_map)


class DDAD(TrainedMixin, AnomalibModule):
    """Intra-discrepancy of autoencoders (Cai et al., MICCAI 2022), see :class:`DDADModel`.

    Args:
        image_size: Height and width that the networks see, in pixels.
        networks: Number of autoencoders.
        steps: Number of batches.
        lr: Learning rate.
        **components: Anomalib's pre-processor, post-processor, evaluator and visualizer.
    """

    mean = HALF
    std = HALF

    def __init__(
        self,
        image_size: tuple[int, int] = (64, 64),
        networks: int = 3,
        steps: int = 3100,
        lr: float = 5e-4,
        **components: Any,
    ) -> None:
        super().__init__(image_size, steps, **components)
        self.model: DDADModel = DDADModel(image_size, networks)
        self.lr = lr

    def configure_optimizers(self) -> Adam:
        """Adam of all networks."""
        return Adam(self.model.parameters(), lr=self.lr)
