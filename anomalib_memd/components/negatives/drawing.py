"""What all kinds of negatives draw with."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.modality import Modality

Images = dict[Modality, torch.Tensor]
"""One image ``(3, H, W)``, sRGB in [0, 1], for each modality."""


def begin(images: Images, seed: int) -> tuple[torch.Tensor, torch.Generator]:
    """The field of view of the images, ``(H, W)``, and a generator for what is drawn into it.

    Args:
        images: Images of the same tissue.
        seed: Seed of the draw.
    """
    return field_of_view(images), torch.Generator().manual_seed(seed)


def replace(images: Images, donor: Images, opacity: torch.Tensor, random: torch.Generator) -> Images:
    """Lay the shifted texture of another case over images.

    Args:
        images: Images that are changed.
        donor: Images of the other case.
        opacity: Share of the foreign texture in each pixel, ``(H, W)``, in [0, 1].
        random: Draws the shift.
    """
    height, width = opacity.shape
    shift = random_shift(height, width, random)
    foreign = {modality: torch.roll(donor[modality], shift, (-2, -1)) for modality in images}
    return {modality: torch.lerp(image, foreign[modality], opacity) for modality, image in images.items()}


def field_of_view(images: Images, threshold: float = 0.06) -> torch.Tensor:
    """Find where tissue is seen: all that is not black border or painted-out overlay.

    Args:
        images: sRGB images in [0, 1] of shape ``(3, H, W)``.
        threshold: Brightness in [0, 1] that counts as black.

    Returns:
        Boolean mask of shape ``(H, W)``.
    """
    brightest = torch.stack([image.amax(0) for image in images.values()]).amax(0)
    return F.max_pool2d(brightest[None, None], 5, stride=1, padding=2)[0, 0] > threshold


def uniform(low: float, high: float, random: torch.Generator) -> float:
    """A number drawn between two."""
    return low + (high - low) * torch.rand((), generator=random).item()


def random_place(size: Sequence[int], sides: Sequence[int], random: torch.Generator) -> tuple[int, int]:
    """Top and left of a rectangle somewhere inside an image.

    Args:
        size: Height and width of the image, in pixels.
        sides: Height and width of the rectangle, in pixels.
        random: Draws the place.
    """
    top, left = (
        int(torch.randint(full - side + 1, (), generator=random)) for full, side in zip(size, sides, strict=True)
    )
    return top, left


def new_generator() -> torch.Generator:
    """A generator whose seed torch's own generator draws, so that a seed of torch repeats all that it draws."""
    return torch.Generator().manual_seed(int(torch.randint(2**31, ())))


def choice(probability: float, random: torch.Generator) -> bool:
    """Whether something of a given probability happens."""
    return torch.rand((), generator=random).item() < probability


def smooth_noise(height: int, width: int, cells: int, random: torch.Generator) -> torch.Tensor:
    """Smooth noise in [0, 1] with ``cells`` blobs a side, shape ``(height, width)``."""
    grid = torch.rand(1, 1, cells, cells, generator=random)
    noise = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)[0, 0]
    return (noise - noise.min()) / (noise.max() - noise.min()).clamp_min(1e-6)


def random_shift(height: int, width: int, random: torch.Generator) -> tuple[int, int]:
    """A shift in pixels, by a quarter to three quarters of each side."""
    return (
        int(torch.randint(height // 4, 3 * height // 4, (), generator=random)),
        int(torch.randint(width // 4, 3 * width // 4, (), generator=random)),
    )
