"""The losses of WtNGAN."""

import torch
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d
from torch import nn
from torch.nn import functional as F  # noqa: N812


class LeastSquaresGANLoss(nn.Module):
    """Distance of a discriminator's values from 1 (real) or 0 (translated).

    Source:
        Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017.
    """

    def forward(self, judged: torch.Tensor, real: bool) -> torch.Tensor:
        """Mean square distance.

        Args:
            judged: Values of the discriminator, of any shape.
            real: Whether they should be those of real images.
        """
        return F.mse_loss(judged, torch.full_like(judged, float(real)))


class PatchContrastiveLoss(nn.Module):
    """Cross entropy of finding, among all patches of an image, the one at the same place.

    Args:
        temperature: Temperature of the similarities.

    Source:
        Park et al., "Contrastive Learning for Unpaired Image-to-Image Translation", ECCV 2020.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, translated: list[torch.Tensor], source: list[torch.Tensor]) -> torch.Tensor:
        """Mean over layers, images and patches.

        Args:
            translated: Vectors ``(B, P, C)`` of unit length of each layer, of the translated image.
            source: Those of its source, at the same places; no gradient flows into them.
        """
        losses = []
        for queries, keys in zip(translated, source, strict=True):
            similarity = queries @ keys.detach().mT / self.temperature
            target = torch.arange(queries.shape[1], device=queries.device).expand(len(queries), -1)
            losses.append(F.cross_entropy(similarity.mT, target))
        return torch.stack(losses).mean()


class StructureConsistencyLoss(nn.Module):
    r"""What is missing to 1 in the structure term of SSIM, between the luma of two images.

    .. math::
        L = 1 - \frac{\sigma_{xy} + c}{\sigma_x \sigma_y + c}

    with covariance and deviations in a Gaussian window. Neither brightness nor contrast count, so that colours may
    change while every edge stays where it is and keeps its direction.

    Args:
        window: Side of the window in pixels.
        deviation: Deviation of the Gaussian in pixels.
        constant: ``c``, which lets flat regions count little.

    Source:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004, eq. 10.
    """

    def __init__(self, window: int = 11, deviation: float = 1.5, constant: float = 0.03**2 / 2) -> None:
        super().__init__()
        self.window = (window, window)
        self.deviation = (deviation, deviation)
        self.constant = constant

    def forward(
        self, translated: torch.Tensor, source: torch.Tensor, counted: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean over all pixels, or those that count.

        Args:
            translated: sRGB images in [0, 1] of shape ``(B, 3, H, W)``.
            source: Images that they are compared with, of the same shape.
            counted: Pixels that count, boolean ``(B, 1, H, W)``.
        """
        loss = 1 - self.structure(translated, source)
        return loss.mean() if counted is None else (loss * counted).sum() / counted.sum().clamp_min(1)

    def structure(self, translated: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """The structure term of each pixel, -1 to 1, of shape ``(B, 1, H, W)``."""
        x, y = rgb_to_grayscale(translated), rgb_to_grayscale(source)
        moments = torch.cat([x, y, x * x, y * y, x * y], dim=1)
        mean_x, mean_y, xx, yy, xy = gaussian_blur2d(moments, self.window, self.deviation).split(1, dim=1)
        # Clamped away from zero, where the root has no gradient.
        variance_x, variance_y = (xx - mean_x**2).clamp_min(1e-8), (yy - mean_y**2).clamp_min(1e-8)
        return (xy - mean_x * mean_y + self.constant) / ((variance_x * variance_y).sqrt() + self.constant)
