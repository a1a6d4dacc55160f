"""A small convolutional autoencoder, and its derivative in terms that can be exported."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class ConvAutoEncoder(nn.Module):
    """Strided convolutions to a vector, and back.

    Args:
        image_size: Height and width of the images, in pixels; multiples of 2 to the number of widths.
        latent: Number of values of the vector.
        widths: Number of channels of each convolution.

    Raises:
        ValueError: If the size of the images is no such multiple.

    Source:
        Cai et al., "MedIAnomaly: A Comparative Study of Anomaly Detection in Medical Images", 2024: 64 pixels, widths
        of 16, 32, 64 and 64, 16 values.
    """

    def __init__(
        self, image_size: Sequence[int] = (64, 64), latent: int = 16, widths: Sequence[int] = (16, 32, 64, 64)
    ) -> None:
        super().__init__()
        step = 2 ** len(widths)
        if any(side % step for side in image_size):
            msg = (
                f"An autoencoder of {len(widths)} strided convolutions takes images of multiples of {step} pixels. "
                f"{tuple(image_size)} is none."
            )
            raise ValueError(msg)
        grid = [side // step for side in image_size]
        size = widths[-1] * grid[0] * grid[1]
        down: list[nn.Module] = []
        for low, high in pairwise([3, *widths]):
            down += [nn.Conv2d(low, high, 4, stride=2, padding=1), nn.BatchNorm2d(high), nn.ReLU()]
        up: list[nn.Module] = []
        for low, high in pairwise([*reversed(widths), widths[0]]):
            up += [nn.ConvTranspose2d(low, high, 4, stride=2, padding=1), nn.BatchNorm2d(high), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(size, latent))
        self.decoder = nn.Sequential(
            nn.Linear(latent, size), nn.Unflatten(1, (widths[-1], *grid)), *up, nn.Conv2d(widths[0], 3, 3, padding=1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Reconstruct images of shape ``(B, 3, H, W)``."""
        return self.decoder(self.encoder(images))

    def error_and_gradient(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        r"""The absolute error, and the gradient of its mean over an image with respect to that image.

        .. math::
            e = |x - f(x)|, \qquad \frac{\partial \bar e}{\partial x} =
            \frac1N \big(I - J^T\big) \operatorname{sign}(x - f(x))

        with the Jacobian :math:`J` of the reconstruction. It is worked out layer by layer, as exported graphs know no
        automatic differentiation. The statistics of the batch normalisation are fixed, as in evaluation.

        Args:
            images: Shape ``(B, 3, H, W)``.

        Returns:
            Both of the shape of the images.
        """
        layers = [*self.encoder, *self.decoder]
        inputs, value = [], images
        for layer in layers:
            inputs.append(value)
            value = layer(value)
        sign = torch.sign(images - value)
        pulled = sign
        for layer, given in zip(reversed(layers), reversed(inputs), strict=True):
            pulled = _pull_back(layer, given, pulled)
        return (images - value).abs(), (sign - pulled) / images[0].numel()


def _pull_back(layer: nn.Module, given: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    """The transposed derivative of a layer at its input, applied to what has the shape of its output."""
    match layer:
        case nn.Conv2d():
            pulled = F.conv_transpose2d(cotangent, layer.weight, None, layer.stride, layer.padding)  # type: ignore[arg-type]
        case nn.ConvTranspose2d():
            pulled = F.conv2d(cotangent, layer.weight, None, layer.stride, layer.padding)  # type: ignore[arg-type]
        case nn.BatchNorm2d():
            pulled = cotangent * (layer.weight / (layer.running_var + layer.eps).sqrt())[:, None, None]  # type: ignore[operator]
        case nn.ReLU():
            pulled = cotangent * (given > 0)
        case nn.Linear():
            pulled = cotangent @ layer.weight
        case _:  # What changes the shape alone.
            pulled = cotangent.reshape(-1, *given.shape[1:])
    return pulled
