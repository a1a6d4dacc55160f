"""PyTorch model of f-AnoGAN."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_memd.components.similarity import image_score
from anomalib_memd.models.trained import OneClassNetwork

LEVELS = 4
"""How often the sides of an image are halved."""


class Generator(nn.Module):
    """Makes images in [-1, 1] of vectors.

    Args:
        latent: Number of values of a vector.
        grid: Height and width of the coarsest maps.
        width: Number of channels of the finest ones.
    """

    def __init__(self, latent: int, grid: Sequence[int], width: int) -> None:
        super().__init__()
        widths = [width * min(4, 2**n) for n in reversed(range(LEVELS))]
        self.start = nn.Sequential(
            nn.Linear(latent, widths[0] * grid[0] * grid[1]), nn.Unflatten(1, (widths[0], *grid)), nn.ReLU()
        )
        up: list[nn.Module] = []
        for low, high in pairwise([*widths, width]):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(low, high, 3, padding=1), nn.BatchNorm2d(high), nn.ReLU()]
        self.up = nn.Sequential(*up, nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Images ``(B, 3, H, W)`` of vectors ``(B, latent)``."""
        return self.up(self.start(vectors))


class Critic(nn.Module):
    """Strided convolutions, without normalisation of batches, and a linear end.

    Args:
        outputs: Number of values of an image: 1 of a critic, that of the vector of an encoder.
        grid: Height and width of the coarsest maps.
        width: Number of channels of the finest ones.
    """

    def __init__(self, outputs: int, grid: Sequence[int], width: int) -> None:
        super().__init__()
        widths = [width * min(4, 2**n) for n in range(LEVELS)]
        down: list[nn.Module] = []
        for low, high in pairwise([3, *widths]):
            down += [nn.Conv2d(low, high, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*down, nn.Flatten())
        self.end = nn.Linear(widths[-1] * grid[0] * grid[1], outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Values ``(B, outputs)`` of images ``(B, 3, H, W)``."""
        return self.end(self.features(images))


class FAnoGANModel(OneClassNetwork):
    r"""A generator :math:`G` and a critic :math:`D` of normal images, and then an encoder :math:`E` into them.

    .. math::
        L_D = \overline{D(G(z))} - \overline{D(x)} + \lambda \overline{(|\nabla D(\hat x)| - 1)^2}, \quad
        L_G = -\overline{D(G(z))}

    .. math::
        L_E = \overline{(x - G(E(x)))^2} + \kappa \overline{(f(x) - f(G(E(x))))^2}

    with the features :math:`f` of the critic. :math:`L_E` of an image is its score, the first term its map.

    Args:
        image_size: Height and width of the images, in pixels; multiples of 16.
        latent: Number of values of a vector.
        width: Number of channels of the finest maps.
        feature_weight: Weight :math:`\kappa` of the features.

    Raises:
        ValueError: If the size of the images is no such multiple.

    Source:
        Schlegl et al., "f-AnoGAN: Fast Unsupervised Anomaly Detection with Generative Adversarial Networks", Medical
        Image Analysis 2019; Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
    """

    def __init__(
        self,
        image_size: Sequence[int] = (64, 64),
        latent: int = 128,
        width: int = 64,
        feature_weight: float = 1.0,
    ) -> None:
        super().__init__()
        step = 2**LEVELS
        if any(side % step for side in image_size):
            msg = f"f-AnoGAN takes images of multiples of {step} pixels; {tuple(image_size)} is none."
            raise ValueError(msg)
        grid = [side // step for side in image_size]
        self.latent = latent
        self.feature_weight = feature_weight
        self.generator = Generator(latent, grid, width)
        self.critic = Critic(1, grid, width)
        self.encoder = Critic(latent, grid, width)

    def critic_loss(self, images: torch.Tensor, penalty: float) -> torch.Tensor:
        """Loss of the critic on normal images, with the weight of the penalty on its slope."""
        with torch.no_grad():
            made = self.generator(self.draw(images))
        slope = gradient_penalty(self.critic, images, made)
        return self.critic(made).mean() - self.critic(images).mean() + penalty * slope

    def generator_loss(self, images: torch.Tensor) -> torch.Tensor:
        """Loss of the generator, on as many vectors as there are images."""
        return -self.critic(self.generator(self.draw(images))).mean()

    def draw(self, images: torch.Tensor) -> torch.Tensor:
        """Vectors ``(B, latent)`` of a normal distribution."""
        return torch.randn(len(images), self.latent, device=images.device)

    def residuals(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared error of each pixel, ``(B, 1, H, W)``, and the mean one of the critic's features, ``(B,)``."""
        made = self.generator(self.encoder(images))
        features = (self.critic.features(images) - self.critic.features(made)).square().mean(1)
        return (images - made).square().mean(1, keepdim=True), features

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Loss of the encoder."""
        pixels, features = self.residuals(images)
        return pixels.mean() + self.feature_weight * features.mean()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the loss of the encoder."""
        anomaly_map, features = self.residuals(images)
        score = image_score(anomaly_map, "mean") + self.feature_weight * features
        return InferenceBatch(pred_score=score, anomaly_map=anomaly_map)


def gradient_penalty(critic: nn.Module, real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the slope of a critic from 1, on the lines between real and made images.

    Args:
        critic: Takes images to one value each.
        real: Shape ``(B, 3, H, W)``.
        made: The same shape.
    """
    with torch.enable_grad():
        between = torch.lerp(real, made, torch.rand(len(real), 1, 1, 1, device=real.device)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (torch.linalg.vector_norm(slope.flatten(1), dim=1) - 1).square().mean()
