"""The networks of WtNGAN: generator, discriminator, and the projections that patches are compared in."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.data.overlay import overlay_mask

from .visual_state_space import ChannelNorm, VisualStateSpaceBlock


class Generator(nn.Module):
    """Translate white light into narrow band images.

    Visual state space blocks at a quarter of the resolution, between convolutions. What it gives is added to the log
    odds of the image, so that an untrained generator changes nothing, and overlays stay as they are.

    Args:
        width: Number of channels at full resolution; there are four times as many at a quarter of it.
        blocks: Number of visual state space blocks.
        state_size: Number of states of each channel.

    Example:
        >>> import torch
        >>> Generator(width=8, blocks=1)(torch.rand(1, 3, 30, 42)).shape
        torch.Size([1, 3, 30, 42])
    """

    STRIDE = 4

    def __init__(self, width: int = 32, blocks: int = 4, state_size: int = 8) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                _convolution(3, width, 7),
                _convolution(width, 2 * width, 3, stride=2),
                _convolution(2 * width, 4 * width, 3, stride=2),
            ]
        )
        self.blocks = nn.ModuleList(VisualStateSpaceBlock(4 * width, state_size) for _ in range(blocks))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            _convolution(4 * width, 2 * width, 3),
            nn.Upsample(scale_factor=2),
            _convolution(2 * width, width, 3),
        )
        self.output = nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect")
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.feature_channels = [width, 2 * width, 4 * width] + [4 * width] * blocks

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features of the image after each stage and each block.

        Args:
            image: sRGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            Features ``(B, C, h, w)``, at full, half and a quarter of the resolution; sides that do not divide by 4 are
            padded.
        """
        height, width = image.shape[-2:]
        padding = (0, -width % self.STRIDE, 0, -height % self.STRIDE)
        padded = F.pad(image, padding, mode="replicate") if any(padding) else image
        features = [2 * padded - 1]
        for part in (*self.stages, *self.blocks):
            features.append(part(features[-1]))
        return features[1:]

    def decode(self, encoded: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Translate an image that has been encoded.

        Args:
            encoded: The last of the features of :meth:`encode`.
            image: sRGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            sRGB narrow band images in [0, 1] of the same shape.
        """
        height, width = image.shape[-2:]
        change = self.output(self.up(encoded))[..., :height, :width]
        translated = torch.sigmoid(torch.logit(image, eps=1 / 512) + change)
        return torch.where(overlay_mask(image), image, translated)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Translate.

        Args:
            image: sRGB images in [0, 1] of shape ``(B, 3, H, W)``, of any size.

        Returns:
            sRGB narrow band images in [0, 1] of the same shape.
        """
        return self.decode(self.encode(image)[-1], image)


class PatchDiscriminator(nn.Module):
    """Judge patches of an image: one value for each, high for real ones.

    Args:
        width: Number of channels of the first layer.
        layers: Number of layers that halve the resolution; patches have 70 pixels a side with 3.

    Source:
        Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017.
    """

    def __init__(self, width: int = 32, layers: int = 3) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for layer in range(1, layers + 1):
            before, after = width * min(2 ** (layer - 1), 8), width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            parts += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1),
                nn.InstanceNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
        parts.append(nn.Conv2d(after, 1, 4, padding=1))
        self.layers = nn.Sequential(*parts)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Judge images in [0, 1] of shape ``(B, 3, H, W)``; returns values of shape ``(B, 1, h, w)``."""
        return self.layers(2 * image - 1)


class PatchProjector(nn.Module):
    """Perceptrons that bring single locations of several layers to vectors of unit length.

    Args:
        channels: Number of channels of each layer.
        size: Length of the vectors.
    """

    def __init__(self, channels: list[int], size: int = 128) -> None:
        super().__init__()
        self.perceptrons = nn.ModuleList(
            nn.Sequential(nn.Linear(count, size), nn.ReLU(), nn.Linear(size, size)) for count in channels
        )

    def forward(self, features: list[torch.Tensor], places: list[torch.Tensor]) -> list[torch.Tensor]:
        """Project locations.

        Args:
            features: Features ``(B, C, h, w)`` of each layer.
            places: Flat indices ``(P,)`` of the locations in each.

        Returns:
            Vectors ``(B, P, size)`` of each layer.
        """
        return [
            F.normalize(perceptron(part.flatten(2)[..., index].mT), dim=-1)
            for perceptron, part, index in zip(self.perceptrons, features, places, strict=True)
        ]


def _convolution(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, padding_mode="reflect"),
        ChannelNorm(after),
        nn.GELU(),
    )
