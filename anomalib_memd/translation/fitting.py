"""The coefficients of the closed-form translation, estimated from unpaired images."""

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.data.folder import list_images, split_off
from anomalib_memd.data.overlay import overlay_mask
from anomalib_memd.data.reading import read_image
from anomalib_memd.data.spectral import SpectralNBI, band_light, display, mixture

_START = {
    "weights_415": (0.0, 0.35, 0.65),
    "weights_540": (0.15, 0.85, 0.0),
    "gains": (1.0, 1.0, 1.0),
    "curve": 1.0,
}
"""Where the fit starts: bands by the wavelengths of the camera channels, and a display that changes nothing."""


def fit_spectral(
    wli: Path, nbi: Path, nbi_held_back: float = 0.0, fit_contrasts: bool = False, steps: int = 300, seed: int = 0
) -> pd.DataFrame:
    """Estimate the coefficients of SpectralNBI from white light and narrow band images of different tissue.

    Args:
        wli: Folder of white light images; of one with a split.csv the training images.
        nbi: Folder of real narrow band images.
        nbi_held_back: Share of them that is held back, as in the training of WtNGAN.
        fit_contrasts: Whether the haemoglobin contrasts are estimated too. The distribution of colours says little of
            them where the two sets show different tissue: they then take over what is a difference of the tissue.
        steps: Number of steps of Adam.
        seed: Seed of the pixels and directions that are drawn.

    Returns:
        Arguments of SpectralNBI, one a row, by default and fitted; and the distance of the colours.

    Raises:
        FileNotFoundError: If a folder holds no image.
        ImageReadError: If an image cannot be used; the message names it.
    """
    kept, _ = split_off(list_images(nbi), nbi_held_back)
    random = torch.Generator().manual_seed(seed)
    before, after = match_distribution(
        sample_pixels(list_images(wli, "train"), random), sample_pixels(kept, random), steps, random, fit_contrasts
    )
    return pd.DataFrame({"argument": list(before), "default": before.values(), "fitted": after.values()})


def sample_pixels(paths: Sequence[Path], random: torch.Generator, number: int = 8192) -> torch.Tensor:
    """Draw pixels of tissue, of each image as many.

    Args:
        paths: Image files.
        random: Source of chance.
        number: Number of pixels at least, of all images together.

    Returns:
        sRGB colours in [0, 1], ``(N, 3)``; overlays are left out.
    """
    drawn = []
    share = math.ceil(number / len(paths))
    for path in paths:
        image = read_image(path).as_subclass(torch.Tensor)
        pixels = image.flatten(1).T[~overlay_mask(image[None]).flatten()]
        drawn.append(pixels[torch.randperm(len(pixels), generator=random)[:share]])
    return torch.cat(drawn)


def match_distribution(
    wli: torch.Tensor, nbi: torch.Tensor, steps: int, random: torch.Generator, fit_contrasts: bool = False
) -> tuple[dict[str, object], dict[str, object]]:
    r"""Bring the distribution of translated colours to that of real ones.

    Minimises the sliced Wasserstein distance of sRGB colours: the mean, over random directions, of the distance of
    the sorted projections. What is found remains a spectral model: each band is a mean of the two camera channels
    beside it, and contrasts, gains and the curve's exponent are positive.

    Args:
        wli: White light colours ``(N, 3)``.
        nbi: Narrow band colours ``(M, 3)``.
        steps: Number of steps.
        random: Source of chance.
        fit_contrasts: See :func:`fit_spectral`.

    Returns:
        Arguments of :class:`SpectralNBI`, by default and fitted, and the ``distance`` of each.

    Source:
        Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures", JMIV 2015.
    """
    default = {name: option.default for name, option in inspect.signature(SpectralNBI).parameters.items()}
    values = _free(default | _START)
    for name, value in values.items():
        value.requires_grad_(name != "contrasts" or fit_contrasts)
    image, levels = wli.T[None, :, :, None], torch.linspace(0, 1, 256)
    directions = F.normalize(torch.randn(64, 3, generator=random), dim=1)
    target = (nbi @ directions.T).quantile(levels, dim=0)

    def distance(values: dict[str, torch.Tensor]) -> torch.Tensor:
        light = band_light(image, mixture(*_bands(values)))
        shown = display(light, values["gains"].exp(), values["curve"].exp())[0, :, :, 0].T
        return ((shown @ directions.T).quantile(levels, dim=0) - target).abs().mean()

    optimizer = torch.optim.Adam([value for value in values.values() if value.requires_grad], 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        distance(values).backward()
        optimizer.step()
    with torch.no_grad():
        return tuple(_arguments(found, distance(found)) for found in (_free(default), values))


def _free(arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Numbers without bounds that stand for arguments of :class:`SpectralNBI`; :func:`_arguments` leads back."""
    return {
        "mix": torch.tensor([arguments["weights_415"][2], arguments["weights_540"][0]]).logit(),
        "contrasts": torch.tensor([arguments["contrast_415"], arguments["contrast_540"]]).expm1().log(),
        "gains": torch.tensor(arguments["gains"]).log(),
        "curve": torch.tensor(arguments["curve"]).log(),
    }


def _bands(values: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(2, 3)`` and contrasts ``(2,)`` of 415 nm, between blue and green, and of 540 nm, by red and green."""
    blue, red = values["mix"].sigmoid()
    zero = torch.zeros_like(blue)
    weights = torch.stack([torch.stack([zero, 1 - blue, blue]), torch.stack([red, 1 - red, zero])])
    return weights, F.softplus(values["contrasts"])


def _arguments(values: dict[str, torch.Tensor], distance: torch.Tensor) -> dict[str, object]:
    weights, contrasts = _bands(values)
    found = {
        "weights_415": weights[0],
        "weights_540": weights[1],
        "contrast_415": contrasts[0],
        "contrast_540": contrasts[1],
        "gains": values["gains"].exp(),
        "curve": values["curve"].exp(),
        "distance": distance,
    }
    return {name: _rounded(value) for name, value in found.items()}


def _rounded(value: torch.Tensor) -> object:
    return [round(v, 3) for v in value.tolist()] if value.ndim else round(value.item(), 4)
