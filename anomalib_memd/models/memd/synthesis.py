"""Synthetic negatives: abnormal images and features made from normal ones."""

import math
from enum import StrEnum

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_memd.modality import Modality

Images = dict[Modality, torch.Tensor]


class SynthesisKind(StrEnum):
    """What is drawn into a normal image to make it abnormal."""

    LESION = "lesion"
    """Raised, reddened, eroded and foreign-textured patches, as in diseased mucosa."""
    PERLIN = "perlin"
    """Another image's texture inside thresholded Perlin-like noise, as in DRAEM."""
    PASTE = "paste"
    """A rectangle cut from elsewhere and pasted, as in CutPaste."""
    MIXED = "mixed"
    """Lesions and Perlin noise, in turns of two seeds; both are abnormal images, a lesion alone shows its place."""
    NOISE = "noise"
    """Nothing in the image: Gaussian noise on the features alone, as in SimpleNet."""


class ImageSynthesis:
    """Draw synthetic lesions into normal images, in the same place in every modality.

    The draw is a function of the seed and the images alone, so a pool of negatives can be made again at any
    time, in any order and in any process.

    Args:
        kind: What is drawn, see :class:`SynthesisKind`.

    Example:
        >>> import torch
        >>> pair = {Modality.WLI: torch.rand(3, 64, 64), Modality.NBI: torch.rand(3, 64, 64)}
        >>> abnormal, mask = ImageSynthesis()(pair, donor=pair, seed=0)
        >>> abnormal[Modality.NBI].shape, mask.shape
        (torch.Size([3, 64, 64]), torch.Size([64, 64]))
    """

    def __init__(self, kind: SynthesisKind | str = SynthesisKind.MIXED) -> None:
        self.kind = SynthesisKind(kind)

    def __call__(self, images: Images, donor: Images, seed: int) -> tuple[Images, torch.Tensor]:
        """Make one abnormal image, or one abnormal pair, of a normal one.

        Args:
            images: sRGB images in [0, 1] of shape ``(3, H, W)``, one a modality, registered.
            donor: Images of another normal case in the same modalities and of the same shape, from which
                foreign texture is taken.
            seed: Seed of the draw.

        Returns:
            The abnormal images and the mask of the change, ``(H, W)``: 1 inside, 0 outside, and inside the noise
            among lesions a half, as it says of an image that it is abnormal, but not what a lesion looks like.
        """
        random = torch.Generator().manual_seed(seed)
        height, width = next(iter(images.values())).shape[-2:]
        visible = field_of_view(images)
        kind = self.kind
        inside = 1.0
        if kind is SynthesisKind.MIXED:
            # Two by two: images that are no pair have neighbouring seeds, an even one in white light.
            kind, inside = (SynthesisKind.PERLIN, 0.5) if seed // 2 % 2 else (SynthesisKind.LESION, 1.0)
        if kind is SynthesisKind.NOISE:
            return images, torch.zeros(height, width)
        if kind is SynthesisKind.LESION:
            abnormal, mask = _draw_lesions(images, donor, visible, random)
            return abnormal, mask.float()
        if kind is SynthesisKind.PERLIN:
            mask = (_smooth_noise(height, width, cells=6, random=random) > 0.75) & visible
            opacity = mask * (0.3 + 0.7 * torch.rand((), generator=random))
        else:
            mask = _rectangle(height, width, random) & visible
            opacity = mask.float()
        shift = _random_shift(height, width, random)
        foreign = {modality: torch.roll(donor[modality], shift, (-2, -1)) for modality in images}
        return {m: torch.lerp(image, foreign[m], opacity) for m, image in images.items()}, inside * mask


class FeatureNoise(nn.Module):
    """Gaussian noise on features inside random blobs (SimpleNet, Liu et al., CVPR 2023).

    Args:
        std: Standard deviation of the noise in units of each channel's.
        cells: Number of blobs along the image side, on average.
    """

    def __init__(self, std: float = 0.5, cells: int = 4) -> None:
        super().__init__()
        self.std = std
        self.cells = cells

    def blobs(self, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
        """Draw the places of the noise.

        Args:
            shape: ``(batch, height, width)``.
            device: Where the mask is made.

        Returns:
            Boolean mask of ``shape``; about a quarter of it is true.
        """
        batch, height, width = shape
        noise = torch.randn(batch, 1, self.cells, self.cells, device=device)
        noise = F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)[:, 0]
        return noise > torch.quantile(noise.flatten(1), 0.75, dim=1)[:, None, None]

    def forward(self, features: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Add noise to features.

        Args:
            features: ``(B, C, H, W)``.
            mask: Boolean of shape ``(B, H, W)``: where the noise goes.
            scale: Deviation of each channel, ``(C,)``, the unit of the noise.

        Returns:
            Noisy features of the same shape and type.
        """
        noisy = features.clone(memory_format=torch.contiguous_format)
        # Locations last, so that noise is drawn for those alone that get some.
        places = noisy.permute(0, 2, 3, 1)
        changed = places[mask]
        noise = self.std * scale * torch.randn(changed.shape, device=features.device)
        places[mask] = changed + noise.to(features.dtype)
        return noisy


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


def _uniform(low: float, high: float, random: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=random).item()


def _choice(probability: float, random: torch.Generator) -> bool:
    return torch.rand((), generator=random).item() < probability


def _smooth_noise(height: int, width: int, cells: int, random: torch.Generator) -> torch.Tensor:
    """Smooth noise in [0, 1] with ``cells`` blobs a side, shape ``(height, width)``."""
    grid = torch.rand(1, 1, cells, cells, generator=random)
    noise = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)[0, 0]
    return (noise - noise.min()) / (noise.max() - noise.min()).clamp_min(1e-6)


def _random_shift(height: int, width: int, random: torch.Generator) -> tuple[int, int]:
    return (
        int(torch.randint(height // 4, 3 * height // 4, (), generator=random)),
        int(torch.randint(width // 4, 3 * width // 4, (), generator=random)),
    )


def _rectangle(height: int, width: int, random: torch.Generator) -> torch.Tensor:
    area, aspect = _uniform(0.02, 0.15, random), math.exp(_uniform(-1.0, 1.0, random))
    box_height = min(height, max(1, round(height * math.sqrt(area * aspect))))
    box_width = min(width, max(1, round(width * math.sqrt(area / aspect))))
    top = int(torch.randint(0, height - box_height + 1, (), generator=random))
    left = int(torch.randint(0, width - box_width + 1, (), generator=random))
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top : top + box_height, left : left + box_width] = True
    return mask


def _draw_lesions(
    images: Images,
    donor: Images,
    visible: torch.Tensor,
    random: torch.Generator,
) -> tuple[Images, torch.Tensor]:
    """Draw one to three lesions, each of its own kind and size."""
    mask = torch.zeros_like(visible)
    for _ in range(1 + int(torch.randint(0, 3, (), generator=random)) // (1 + int(_choice(0.5, random)))):
        lesion = _Lesion(visible, random)
        kinds = torch.rand(3, generator=random)
        if kinds[0] < 0.7:
            images = lesion.raise_(images, random)
        if kinds[1] < 0.4:
            images = lesion.texture(images, donor, random)
        if kinds[2] < 0.65 or max(kinds[0] - 0.7, kinds[1] - 0.4) >= 0:
            images = lesion.redden(images, random) if _choice(0.7, random) else lesion.erode(images, random)
        mask |= (lesion.opacity > 0.5) & visible
    return {modality: image.clamp(0, 1) for modality, image in images.items()}, mask


class _Lesion:
    """The place and shape of one lesion: an ellipse with a wavy outline, centred on visible tissue.

    ``radius`` is 0 at the centre and 1 on the outline; ``opacity`` falls from 1 to 0 across a soft edge.
    """

    def __init__(self, visible: torch.Tensor, random: torch.Generator) -> None:
        height, width = visible.shape
        places = visible.flatten().nonzero()[:, 0]
        if len(places) == 0:
            places = torch.arange(height * width)
        centre = int(places[torch.randint(0, len(places), (), generator=random)])
        self.visible = visible
        self.size = math.exp(_uniform(math.log(0.07), math.log(0.3), random)) * min(height, width)
        stretch, angle = math.exp(_uniform(-0.4, 0.4, random)), _uniform(0, math.pi, random)
        rows = (torch.arange(height) - centre // width)[:, None] / self.size
        columns = (torch.arange(width) - centre % width)[None, :] / self.size
        self.row = (rows * math.cos(angle) - columns * math.sin(angle)) * stretch
        self.column = (rows * math.sin(angle) + columns * math.cos(angle)) / stretch
        polar = torch.atan2(self.row, self.column)
        outline = sum(
            _uniform(0, 0.25 / order, random) * torch.cos(order * polar + _uniform(0, 2 * math.pi, random))
            for order in (2, 3, 4, 5)
        )
        self.radius = torch.hypot(self.row, self.column) / (1 + outline)
        self.opacity = ((1 - self.radius) / _uniform(0.1, 0.4, random) + 0.5).clamp(0, 1) * visible
        self.light = (math.cos(light := _uniform(0, 2 * math.pi, random)), math.sin(light))

    def raise_(self, images: Images, random: torch.Generator) -> Images:
        """A dome: the surface is magnified and smoothed, lit on one side, dark on the rim, with a highlight."""
        dome = (1 - self.radius.square()).clamp_min(0).sqrt()
        lambert = dome + 0.6 * (self.row * self.light[0] + self.column * self.light[1]) * (self.radius < 1)
        rim = torch.exp(-((self.radius - 1.05) / _uniform(0.06, 0.2, random)).square())
        shade = 1 + _uniform(0.15, 0.6, random) * (lambert - 0.5) * self.opacity - _uniform(0.0, 0.4, random) * rim
        shade = torch.where(self.visible, shade, 1.0).clamp(0.3, 2)
        spot = torch.hypot(self.row - 0.4 * self.light[0], self.column - 0.4 * self.light[1])
        highlight = torch.exp(-(spot / _uniform(0.05, 0.2, random)).square()) * self.opacity * _choice(0.7, random)
        magnification = _uniform(0.5, 0.95, random)
        blur = _uniform(0.5, 3.0, random)
        raised = {}
        for modality, image in images.items():
            surface = gaussian_blur(self._magnify(image, magnification), 9, blur)
            raised[modality] = torch.lerp(image, surface, self.opacity) * shade + 0.8 * highlight
        return raised

    def redden(self, images: Images, random: torch.Generator) -> Images:
        """More blood: every channel darkens by its absorption in haemoglobin; less blood makes it pale."""
        density = _uniform(0.15, 0.8, random) * (1 if _choice(0.75, random) else -0.5)
        mottled = density * self.opacity * (0.5 + _smooth_noise(*self.opacity.shape, cells=24, random=random))
        absorption = {Modality.WLI: (0.1, 0.75, 0.65), Modality.NBI: (0.6, 1.0, 1.0)}
        return {
            modality: image * torch.exp(-mottled * torch.tensor(absorption[modality])[:, None, None])
            for modality, image in images.items()
        }

    def erode(self, images: Images, random: torch.Generator) -> Images:
        """A fibrin-coated floor, whitish and rough, inside a red rim."""
        floor = ((0.75 - self.radius) / 0.2 + 0.5).clamp(0, 1) * self.visible
        floor = floor * (0.6 + 0.4 * _smooth_noise(*floor.shape, cells=32, random=random)) * _uniform(0.4, 0.9, random)
        coat = {Modality.WLI: (0.9, 0.85, 0.65), Modality.NBI: (0.75, 0.8, 0.7)}
        rim = _uniform(0.2, 0.7, random) * self.opacity * (1 - floor)
        eroded = {}
        for modality, image in images.items():
            colour = torch.tensor(coat[modality])[:, None, None] * image.amax(0).clamp(0.3, 1)
            blood = torch.tensor((0.2, 0.7, 0.6))[:, None, None]
            eroded[modality] = torch.lerp(image * torch.exp(-rim * blood), colour.expand_as(image), floor)
        return eroded

    def texture(self, images: Images, donor: Images, random: torch.Generator) -> Images:
        """Tissue from elsewhere, matched to the brightness of the place."""
        height, width = self.opacity.shape
        shift = _random_shift(height, width, random)
        scale = _uniform(0.4, 1.0, random)
        opacity = self.opacity * _uniform(0.4, 1.0, random)
        weight = self.opacity / self.opacity.sum().clamp_min(1e-6)
        textured = {}
        for modality, image in images.items():
            foreign = self._magnify(torch.roll(donor[modality], shift, (-2, -1)), scale)
            level = (image * weight).sum() / (foreign * weight).sum().clamp_min(1e-3)
            tissue = opacity * field_of_view({modality: foreign})
            textured[modality] = torch.lerp(image, foreign * level.clamp(0.5, 2), tissue)
        return textured

    def _magnify(self, image: torch.Tensor, factor: float) -> torch.Tensor:
        """Sample the image around the lesion's centre at ``factor`` times the distance."""
        height, width = image.shape[-2:]
        centre_row, centre_column = divmod(int(self.radius.argmin()), width)
        rows = (centre_row + (torch.arange(height) - centre_row) * factor) / (height - 1) * 2 - 1
        columns = (centre_column + (torch.arange(width) - centre_column) * factor) / (width - 1) * 2 - 1
        grid = torch.stack(
            [columns[None].expand(height, width), rows[:, None].expand(height, width)],
            dim=-1,
        )
        return F.grid_sample(image[None], grid[None], padding_mode="reflection", align_corners=True)[0]
