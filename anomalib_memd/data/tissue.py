"""A model of mucosa and its lesions, rendered under white and under narrow band light."""

import math
from enum import StrEnum

import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.modality import Modality

# Absorption of haemoglobin in superficial and in deep vessels at the wavelengths in nm, unitless optical depth.
# Blue light hardly reaches deep vessels, and red light passes both.
_ABSORPTION = {
    620: (0.05, 0.08),
    540: (0.7, 0.8),
    460: (0.6, 0.35),
    415: (1.9, 0.25),
}
# Share of light that mucosa without blood gives back.
_REFLECTANCE = {620: 0.85, 540: 0.62, 460: 0.48, 415: 0.55}
_CHANNELS = {Modality.WLI: (620, 540, 460), Modality.NBI: (540, 415, 415)}


class Lesion(StrEnum):
    """Findings that can be rendered."""

    POLYP = "polyp"
    ERYTHEMA = "erythema"
    ULCER = "ulcer"


def render(
    size: int,
    seed: int,
    lesion: Lesion | None = None,
) -> tuple[dict[Modality, torch.Tensor], torch.Tensor]:
    """Render one frame of the same tissue in both modalities.

    Blood in superficial and in deep vessels absorbs by wavelength, folds and lesions shade the light of the
    scope, wet spots shine, and the field of view darkens towards its octagonal border.

    Args:
        size: Height and width in pixels.
        seed: Seed of the tissue.
        lesion: Finding to put in, or ``None`` for normal mucosa.

    Returns:
        sRGB images in [0, 1] of shape ``(3, size, size)``, and the mask of the lesion, boolean ``(size, size)``.
    """
    random = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    superficial = 0.25 * _noise(size, 40, random).abs() + 0.9 * _vessels(size, 9, 0.12, random)
    deep = 0.9 * _vessels(size, 4, 0.16, random)
    blood = 0.35 + 0.12 * _noise(size, 3, random)
    height = _folds(x, y, random) + 0.02 * _noise(size, 6, random)
    coat = torch.zeros(size, size)
    mask = torch.zeros(size, size, dtype=torch.bool)
    if lesion is not None:
        radius = _place(x, y, random)
        inside = ((1 - radius) / 0.25 + 0.5).clamp(0, 1)
        mask = radius < 1
        if lesion is Lesion.POLYP:
            height = height + _uniform(0.25, 0.5, random) * (1 - radius.square()).clamp_min(0).sqrt()
            superficial = torch.lerp(superficial, 0.4 + 0.4 * _noise(size, 24, random).abs(), inside)
            deep = deep * (1 - inside)
            blood = blood + 0.25 * inside
        elif lesion is Lesion.ERYTHEMA:
            blood = blood + _uniform(0.9, 1.5, random) * inside * (1 + 0.4 * _noise(size, 20, random))
        else:
            floor = ((0.7 - radius) / 0.15 + 0.5).clamp(0, 1)
            coat = floor * (0.75 + 0.2 * _noise(size, 30, random)).clamp(0, 1)
            superficial, deep = superficial * (1 - floor), deep * (1 - floor)
            blood = blood * (1 - floor) + 0.7 * inside * (1 - floor)
            height = height - 0.1 * floor
    light = _light(x, y, height)
    shine = _shine(height, size, random)
    visible = (x.abs() < 0.97) & (y.abs() < 0.97) & (x.abs() + y.abs() < 1.62)
    colour_cast = {nm: _uniform(0.93, 1.07, random) for nm in _ABSORPTION}
    images = {}
    for modality, wavelengths in _CHANNELS.items():
        channels = []
        for nm in wavelengths:
            near, far = _ABSORPTION[nm]
            depth = near * (superficial + blood).clamp_min(0) + far * (deep + blood).clamp_min(0)
            tissue = torch.lerp(_REFLECTANCE[nm] * torch.exp(-depth), torch.tensor(0.8), coat)
            channels.append(colour_cast[nm] * light * tissue)
        linear = torch.stack(channels) * (1.0 if modality is Modality.WLI else 1.5) + shine
        noisy = linear.clamp(0, 1) ** (1 / 2.2) + 0.01 * torch.randn(3, size, size, generator=random)
        images[modality] = (noisy * visible).clamp(0, 1)
    return images, mask & visible


def _uniform(low: float, high: float, random: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=random).item()


def _noise(size: int, cells: int, random: torch.Generator) -> torch.Tensor:
    """Smooth noise of mean 0 and about unit deviation, ``cells`` blobs a side."""
    grid = torch.randn(1, 1, cells, cells, generator=random)
    return F.interpolate(grid, (size, size), mode="bicubic", align_corners=False)[0, 0]


def _vessels(size: int, cells: int, width: float, random: torch.Generator) -> torch.Tensor:
    """Density in [0, 1] of a network of vessels: the zero lines of smooth noise, thick and thin."""
    caliber = width * (0.6 + 0.5 * _noise(size, cells, random).abs())
    return torch.exp(-(_noise(size, cells, random) / caliber).square())


def _folds(x: torch.Tensor, y: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Height of a few curved ridges."""
    height = torch.zeros_like(x)
    for _ in range(2 + int(torch.randint(0, 3, (), generator=random))):
        angle, offset, bend = (_uniform(0, math.pi, random), _uniform(-0.9, 0.9, random), _uniform(-0.5, 0.5, random))
        along = x * math.cos(angle) + y * math.sin(angle)
        across = -x * math.sin(angle) + y * math.cos(angle) + bend * along.square() - offset
        height = height + _uniform(0.1, 0.25, random) * torch.exp(-(across / _uniform(0.08, 0.16, random)).square())
    return height


def _place(x: torch.Tensor, y: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Distance from the centre of a lesion in units of its wavy radius."""
    centre_x, centre_y = _uniform(-0.55, 0.55, random), _uniform(-0.55, 0.55, random)
    angle = torch.atan2(y - centre_y, x - centre_x)
    outline = sum(
        _uniform(0, 0.2 / order, random) * torch.cos(order * angle + _uniform(0, 2 * math.pi, random))
        for order in (2, 3, 4)
    )
    return torch.hypot(x - centre_x, y - centre_y) / (_uniform(0.26, 0.46, random) * (1 + outline))


def _light(x: torch.Tensor, y: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    """Light of the scope on the surface: Lambert's cosine, slightly from above, and a vignette."""
    down, right = torch.gradient(height, spacing=2 / height.shape[0])
    normal = torch.rsqrt(1 + down.square() + right.square())
    lambert = ((1 - 0.35 * down - 0.2 * right) * normal).clamp(0.1, 1.6)
    return lambert * (1.05 - 0.45 * (x.square() + y.square()))


def _shine(height: torch.Tensor, size: int, random: torch.Generator) -> torch.Tensor:
    """Specular spots where the wet surface faces the light."""
    wet = height + 0.05 * _noise(size, 12, random)
    down, right = torch.gradient(wet, spacing=2 / size)
    facing = torch.exp(-((down + 0.25).square() + (right + 0.1).square()) / 0.05)
    return 0.9 * ((facing * (_noise(size, 16, random) > 1.1)) > 0.6).float()
