"""Diversified dual-space uncertainty estimation."""

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


class D2UEModel(OneClassNetwork):
    r"""Autoencoders that are trained one after the other, each with other vectors than those before.

    .. math::
        L_k = \|x - f_k(x)\|^2 / N + \tfrac{1}{k-1} \sum_{j<k} \mathrm{CKA}(z_k, z_j)

    The map is the deviation over the autoencoders of the error times its sensitivity,

    .. math::
        \operatorname{std}_k \; \big|x - f_k(x)\big| \cdot \Big|\frac{\partial}{\partial x}
        \overline{|x - f_k(x)|}\Big|, \quad \text{mean over colours}.

    Args:
        image_size: Height and width of the images, in pixels.
        networks: Number of autoencoders.

    Source:
        Gu et al., "Revisiting Deep Ensemble Uncertainty for Enhanced Medical Anomaly Detection", MICCAI 2024. The
        deviation is over models, as the paper has it.
    """

    def __init__(self, image_size: Sequence[int] = (64, 64), networks: int = 3) -> None:
        super().__init__()
        self.networks = nn.ModuleList(ConvAutoEncoder(image_size) for _ in range(networks))
        self.learning = 0
        """Number of the autoencoder that learns."""

    def train(self, mode: bool = True) -> "D2UEModel":
        """Those that have learned are left as they are."""
        super().train(mode)
        self.networks[: self.learning].eval()
        return self

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Loss of the autoencoder that learns, see the class."""
        own = self.networks[min(self.learning, len(self.networks) - 1)]
        vectors = own.encoder(images)  # type: ignore[operator]
        error = (images - own.decoder(vectors)).square().mean()  # type: ignore[operator]
        with torch.no_grad():
            others = [network.encoder(images) for network in self.networks[: self.learning]]  # type: ignore[operator]
        if not others:
            return error
        return error + torch.stack([centered_kernel_alignment(vectors, other) for other in others]).mean()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the mean of the map."""
        weighed = []
        for network in self.networks:
            error, gradient = network.error_and_gradient(images)  # type: ignore[operator]
            weighed.append(error * gradient.abs() * images[0].numel())
        anomaly_map = torch.stack(weighed).std(0, correction=0).mean(1, keepdim=True)
        return InferenceBatch(pred_score=image_score(anomaly_map, "mean"), anomaly_map=anomaly_map)


def centered_kernel_alignment(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    r"""Linear centred kernel alignment of two sets of vectors of the same images, in [0, 1].

    .. math::
        \frac{\|Y^T X\|_F^2}{\|X^T X\|_F \, \|Y^T Y\|_F}, \quad \text{columns centred}

    Args:
        first: Shape ``(B, P)``.
        second: Shape ``(B, Q)``.

    Source:
        Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019.
    """
    x, y = first - first.mean(0), second - second.mean(0)
    scale = torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)
    return torch.linalg.matrix_norm(y.T @ x).square() / scale.clamp_min(1e-12)


class D2UE(TrainedMixin, AnomalibModule):
    """Diversified dual-space uncertainty estimation (Gu et al., MICCAI 2024), see :class:`D2UEModel`.

    Batches of 64 images were published, for 250 epochs: 3100 steps of 800 images, for each autoencoder.

    Args:
        image_size: Height and width that the networks see, in pixels.
        networks: Number of autoencoders.
        steps: Number of batches for each of them.
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
        self.model: D2UEModel = D2UEModel(image_size, networks)
        self.phases = networks  # type: ignore[misc]
        self.lr = lr

    def configure_optimizers(self) -> Adam:
        """Adam of all networks; those that do not learn have no gradient."""
        return Adam(self.model.parameters(), lr=self.lr)

    def end_phase(self) -> None:
        """Let the next autoencoder learn."""
        super().end_phase()
        self.model.learning = self.phase
        self.model.train(self.model.training)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the autoencoder learn whose turn it was."""
        super().on_load_checkpoint(checkpoint)
        self.model.learning = self.phase
