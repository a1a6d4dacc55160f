"""Kinds of autoencoders: what is added to one, how it is trained, and how an image is compared with what it makes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.autoencoder import ConvAutoEncoder
from anomalib_memd.components.backbones import build_backbone, normalization
from anomalib_memd.components.similarity import image_score, structural_distance
from anomalib_memd.components.unet import UNet
from anomalib_memd.models.trained import OneClassNetwork

WINDOW = 11
"""Side of the window of the structural similarity, in pixels."""


class AutoEncoderModel(OneClassNetwork):
    """A plain autoencoder: the squared error is loss, map and, averaged, the score of an image.

    Images are in [-1, 1].

    Args:
        image_size: Height and width of the images, in pixels.
        backbone: Unused but by a perceptual distance.
        weights: Likewise.
    """

    def __init__(
        self,
        image_size: Sequence[int] = (64, 64),
        backbone: str = "resnet18.tv_in1k",
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        del backbone, weights
        self.network: nn.Module = ConvAutoEncoder(image_size)

    def distance(self, images: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """Distance of images from their reconstructions, ``(B, 1, H, W)``."""
        return (images - made).square().mean(1, keepdim=True)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Mean distance of normal images from their reconstructions."""
        return self.distance(images, self.network(images)).mean()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images by the mean distance."""
        anomaly_map = self.distance(images, self.network(images))
        return InferenceBatch(pred_score=image_score(anomaly_map, "mean"), anomaly_map=anomaly_map)


class StructuralAutoEncoder(AutoEncoderModel):
    """The distance is that of structural similarity.

    Source:
        Bergmann et al., "Improving Unsupervised Defect Segmentation by Applying Structural Similarity to Autoencoders",
        VISAPP 2019.
    """

    def distance(self, images: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """Half of one minus the similarity, mean over colours."""
        return structural_distance(images, made, WINDOW, span=2.0).mean(1, keepdim=True)


class PerceptualAutoEncoder(AutoEncoderModel):
    r"""The distance is one of features: :math:`|\phi(x) - \phi(\hat x)| / \overline{|\phi(x)|}`, mean over channels.

    Source:
        Shvetsova et al., "Anomaly Detection in Medical Imaging with Deep Perceptual Autoencoders", IEEE Access 2021,
        with VGG-19; here with two layers of any backbone.
    """

    LAYERS = ("layer1", "layer2")

    def __init__(
        self,
        image_size: Sequence[int] = (64, 64),
        backbone: str = "resnet18.tv_in1k",
        weights: str | Path | None = None,
    ) -> None:
        super().__init__(image_size)
        # Gradients flow through, and change nothing.
        self.backbone = build_backbone(backbone, self.LAYERS, weights=weights, requires_grad=True).requires_grad_(False)
        mean, std = (torch.tensor(values)[:, None, None] for values in normalization(self.backbone))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def train(self, mode: bool = True) -> "PerceptualAutoEncoder":
        """The backbone is always in evaluation."""
        super().train(mode)
        self.backbone.eval()
        return self

    def distance(self, images: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """Relative distance of features, mean over layers."""
        first, second = (self.backbone(((x + 1) / 2 - self.mean) / self.std) for x in (images, made))
        maps = [
            (a - b).abs().mean(1, keepdim=True) / a.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-6)
            for a, b in zip(first.values(), second.values(), strict=True)
        ]
        enlarged = [F.interpolate(m, images.shape[-2:], mode="bilinear") for m in maps]
        return torch.stack(enlarged).mean(0)


class VariationalAutoEncoder(AutoEncoderModel):
    r"""The vector is drawn: :math:`z \sim N(\mu, \sigma^2)`, and its divergence from :math:`N(0, 1)` is added.

    Source:
        Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014; weight of MedIAnomaly.
    """

    WEIGHT, LATENT = 0.005, 16

    def __init__(self, image_size: Sequence[int] = (64, 64), *args: object) -> None:
        super().__init__(image_size)
        del args
        self.network = _Variational(ConvAutoEncoder(image_size, self.LATENT), self.LATENT)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Squared error plus the divergence, mean over the vector."""
        mean, logarithm = self.network.moments(images)  # type: ignore[operator]
        drawn = mean + torch.randn_like(mean) * (logarithm / 2).exp()
        divergence = 0.5 * (mean.square() + logarithm.exp() - 1 - logarithm).mean()
        return self.distance(images, self.network.decode(drawn)).mean() + self.WEIGHT * divergence  # type: ignore[operator]


class _Variational(nn.Module):
    """An autoencoder whose vector has a variance; forward, it takes the mean."""

    def __init__(self, autoencoder: ConvAutoEncoder, latent: int) -> None:
        super().__init__()
        *down, last = autoencoder.encoder
        self.encoder, self.decode = nn.Sequential(*down), autoencoder.decoder
        self.moment = nn.Linear(last.in_features, 2 * latent)  # type: ignore[arg-type]

    def moments(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Mean and logarithm of the variance, each ``(B, latent)``."""
        return self.moment(self.encoder(images)).chunk(2, dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.decode(self.moments(images)[0])


class ConstrainedAutoEncoder(AutoEncoderModel):
    """An image and its reconstruction have to have the same vector.

    Source:
        Chen and Konukoglu, "Unsupervised Detection of Lesions in Brain MRI Using Constrained Adversarial
        Auto-encoders", MIDL 2018.
    """

    WEIGHT = 1.0

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Squared error plus that of the vectors."""
        vectors = self.network.encoder(images)
        made = self.network.decoder(vectors)
        return self.distance(images, made).mean() + self.WEIGHT * F.mse_loss(self.network.encoder(made), vectors)


class MemoryAutoEncoder(AutoEncoderModel):
    r"""The vector is replaced by a sparse sum of learned ones: :math:`\hat z = \sum_i \hat w_i m_i`.

    .. math::
        w = \mathrm{softmax}(\cos(z, m_i)), \quad \hat w_i \propto \max(0, w_i - \lambda) \, w_i / |w_i - \lambda|

    The entropy of :math:`\hat w` is added to the loss.

    Source:
        Gong et al., "Memorizing Normality to Detect Anomaly: Memory-Augmented Deep Autoencoder for Unsupervised Anomaly
        Detection", ICCV 2019. Number of vectors and threshold are open for small images; here 100, and the mean weight.
    """

    WEIGHT, SLOTS, LATENT = 0.0002, 100, 16

    def __init__(self, image_size: Sequence[int] = (64, 64), *args: object) -> None:
        super().__init__(image_size)
        del args
        autoencoder = ConvAutoEncoder(image_size, self.LATENT)
        self.memory = Memory(self.SLOTS, self.LATENT)
        self.network = nn.Sequential(autoencoder.encoder, self.memory, autoencoder.decoder)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Squared error plus the entropy of the weights, summed over the memory."""
        encoder, decoder = self.network[0], self.network[2]  # type: ignore[index]
        weights = self.memory.weights(encoder(images))
        entropy = -(weights * (weights + 1e-12).log()).sum(1).mean()  # Finite slopes where weights are 0.
        made = decoder(weights @ self.memory.vectors)
        return self.distance(images, made).mean() + self.WEIGHT * entropy


class Memory(nn.Module):
    """Learned vectors, of which each vector that comes in is made up, see :class:`MemoryAutoEncoder`.

    Args:
        slots: Number of vectors.
        width: Number of values of each.
    """

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(slots, width) / width**0.5)

    def weights(self, given: torch.Tensor) -> torch.Tensor:
        """Weight of each vector of the memory in vectors ``(B, width)``: ``(B, slots)``, rows sum to 1."""
        shares = (F.normalize(given, dim=1) @ F.normalize(self.vectors, dim=1).T).softmax(1)
        above = shares - 1 / len(self.vectors)
        sparse = F.relu(above) * shares / (above.abs() + 1e-12)
        return sparse / sparse.sum(1, keepdim=True).clamp_min(1e-12)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Replace vectors ``(B, width)``."""
        return self.weights(given) @ self.vectors


class DenoisingAutoEncoder(AutoEncoderModel):
    """A U-shaped network takes coarse noise away; at test it sees the image as it is.

    Source:
        Kascenas et al., "Denoising Autoencoders for Unsupervised Anomaly Detection in Brain MRI", MIDL 2022: noise of
        deviation 0.2 of the range, on a grid of 16 x 16, shifted at random.
    """

    GRID, DEVIATION = 16, 0.4

    def __init__(self, image_size: Sequence[int] = (128, 128), *args: object) -> None:
        super().__init__(image_size)
        del args
        self.network = UNet()

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Distance of clean images from what is made of noisy ones."""
        return self.distance(images, self.network(images + coarse_noise(images, self.GRID, self.DEVIATION))).mean()


def coarse_noise(images: torch.Tensor, grid: int, deviation: float) -> torch.Tensor:
    """Gaussian noise on a coarse grid, enlarged and shifted, in the shape of images ``(B, C, H, W)``."""
    batch, channels, *size = images.shape
    noise = deviation * torch.randn(batch, channels, grid, grid, device=images.device)
    shift = [int(torch.randint(side, ())) for side in size]
    return F.interpolate(noise, size, mode="bilinear").roll(shift, (-2, -1))


KINDS: dict[str, type[AutoEncoderModel]] = {
    "plain": AutoEncoderModel,
    "ssim": StructuralAutoEncoder,
    "perceptual": PerceptualAutoEncoder,
    "variational": VariationalAutoEncoder,
    "constrained": ConstrainedAutoEncoder,
    "memory": MemoryAutoEncoder,
    "denoising": DenoisingAutoEncoder,
}
"""The kinds by name."""
