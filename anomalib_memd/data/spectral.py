"""Closed-form translation of white light images into narrow band images."""

import torch
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import nn


class SpectralNBI(nn.Module):
    r"""Translate white light into narrow band images with a closed-form spectral model.

    Narrow band imaging lights the mucosa at 415 nm and 540 nm only, two peaks of the absorption of
    haemoglobin, so that vessels turn dark. The reflectance in a narrow band is estimated from the
    linear camera channels in the log domain, that is, by the law of Beer and Lambert as a mixture of
    optical densities:

    .. math::
        \log I_\lambda = \sum_{c \in \{R, G, B\}} w_{\lambda c} \log I_c
            + h_\lambda (\log I_G - \log I_R)

    The first term interpolates the illumination; the second is the *haemoglobin contrast*: red light is
    hardly absorbed by haemoglobin and green light is, so their log ratio is a measure of its density, of
    which :math:`h_\lambda` adds what the broad camera channels blur away. A display mapping then shows
    540 nm as red and 415 nm as green and blue, each with a gain, as endoscopy processors do.

    The output is aligned with the input pixel by pixel and a function of the single pixel. Grey pixels,
    among them black borders and white highlights, keep no haemoglobin contrast, and black stays black.

    Args:
        weights_415: Mixture weights :math:`w` of (R, G, B) for 415 nm; they should sum to 1.
        weights_540: The same for 540 nm.
        contrast_415: Haemoglobin contrast :math:`h` at 415 nm, unitless.
        contrast_540: The same at 540 nm.
        gains: Display gains of (red, green, blue) in linear light.
        curve: Exponent of the display curve, applied to linear light after the gains.

    The defaults of all but the contrasts are what :func:`~anomalib_memd.translation.fitting.fit_spectral` finds for
    colonoscopy and real narrow band frames, see ``docs/translation.md``; it does the same for images of one's own.

    Example:
        >>> import torch
        >>> nbi = SpectralNBI()(torch.rand(2, 3, 32, 32))
        >>> nbi.shape
        torch.Size([2, 3, 32, 32])

    Source:
        Gono et al., "Appearance of enhanced tissue features in narrow-band endoscopic imaging",
        J. Biomed. Opt. 2004 (bands and display mapping).
    """

    def __init__(
        self,
        weights_415: tuple[float, float, float] = (0.0, 0.624, 0.376),
        weights_540: tuple[float, float, float] = (0.029, 0.971, 0.0),
        contrast_415: float = 0.7,
        contrast_540: float = 0.2,
        gains: tuple[float, float, float] = (1.635, 4.531, 2.708),
        curve: float = 1.1532,
    ) -> None:
        super().__init__()
        weights = torch.tensor([weights_415, weights_540])
        self.register_buffer("mixture", mixture(weights, torch.tensor([contrast_415, contrast_540])), persistent=False)
        self.register_buffer("gains", torch.tensor(gains), persistent=False)
        self.mixture: torch.Tensor
        self.gains: torch.Tensor
        self.curve = curve

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Translate white light images.

        Args:
            image: sRGB images in [0, 1] of shape ``(..., 3, H, W)``.

        Returns:
            sRGB narrow band images in [0, 1] of the same shape and dtype.

        Raises:
            ValueError: If the image does not have 3 channels or is not of a floating point type.
        """
        if image.ndim < 3 or image.shape[-3] != 3 or not image.is_floating_point():
            msg = (
                f"SpectralNBI expects float images of shape (..., 3, H, W) in [0, 1], "
                f"got {image.dtype} of shape {tuple(image.shape)}."
            )
            raise ValueError(msg)
        dtype = image.dtype
        return display(band_light(image, self.mixture.to(dtype)), self.gains.to(dtype), self.curve)

    def extra_repr(self) -> str:
        """The coefficients; also what identifies this translator in cache keys."""
        return f"mixture={self.mixture.tolist()}, gains={self.gains.tolist()}, curve={self.curve}"


def mixture(weights: torch.Tensor, contrasts: torch.Tensor) -> torch.Tensor:
    """Weights of the log camera channels in each display channel.

    Args:
        weights: Mixture weights ``w`` of (R, G, B), ``(2, 3)``: of 415 nm, then of 540 nm.
        contrasts: Haemoglobin contrasts ``h``, ``(2,)``, in the same order.

    Returns:
        Weights ``(3, 3)``, display channel by camera channel.
    """
    haemoglobin = weights.new_tensor([-1.0, 1.0, 0.0])
    bands = weights + contrasts[:, None] * haemoglobin
    return bands[[1, 0, 0]]


def band_light(image: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    """Linear light of the band that each display channel shows.

    Args:
        image: sRGB images in [0, 1] of shape ``(..., 3, H, W)``.
        mixture: What :func:`mixture` returns.
    """
    log_linear = rgb_to_linear_rgb(image).clamp_min(1e-4).log()
    return torch.einsum("ij,...jhw->...ihw", mixture, log_linear).exp()


def display(light: torch.Tensor, gains: torch.Tensor, curve: float | torch.Tensor) -> torch.Tensor:
    """Display mapping of a processor.

    Args:
        light: Linear light ``(..., 3, H, W)``.
        gains: Gains of (red, green, blue), ``(3,)``.
        curve: Exponent.

    Returns:
        sRGB images in [0, 1] of the same shape.
    """
    # Zero has no gradient under a curve.
    shown = (light * gains[:, None, None]).clamp(1e-8, 1)
    return linear_rgb_to_rgb(shown**curve)
