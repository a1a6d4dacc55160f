"""Lesions: raised, reddened, eroded and foreign-textured patches, as in diseased mucosa."""

import math

import torch
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_memd.modality import Modality

from .drawing import Images, begin, choice, field_of_view, random_shift, smooth_noise, uniform


def draw_lesions(images: Images, donor: Images, seed: int) -> tuple[Images, torch.Tensor]:
    """Draw one to three lesions, each of its own kind and size."""
    visible, random = begin(images, seed)
    mask = torch.zeros_like(visible)
    for _ in range(1 + int(torch.randint(0, 3, (), generator=random)) // (1 + int(choice(0.5, random)))):
        lesion = _Lesion(visible, random)
        kinds = torch.rand(3, generator=random)
        if kinds[0] < 0.7:
            images = lesion.raise_(images, random)
        if kinds[1] < 0.4:
            images = lesion.texture(images, donor, random)
        if kinds[2] < 0.65 or max(kinds[0] - 0.7, kinds[1] - 0.4) >= 0:
            images = lesion.redden(images, random) if choice(0.7, random) else lesion.erode(images, random)
        mask |= (lesion.opacity > 0.5) & visible
    return {modality: image.clamp(0, 1) for modality, image in images.items()}, mask.float()


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
        self.size = math.exp(uniform(math.log(0.07), math.log(0.3), random)) * min(height, width)
        stretch, angle = math.exp(uniform(-0.4, 0.4, random)), uniform(0, math.pi, random)
        rows = (torch.arange(height) - centre // width)[:, None] / self.size
        columns = (torch.arange(width) - centre % width)[None, :] / self.size
        self.row = (rows * math.cos(angle) - columns * math.sin(angle)) * stretch
        self.column = (rows * math.sin(angle) + columns * math.cos(angle)) / stretch
        polar = torch.atan2(self.row, self.column)
        outline = sum(
            uniform(0, 0.25 / order, random) * torch.cos(order * polar + uniform(0, 2 * math.pi, random))
            for order in (2, 3, 4, 5)
        )
        self.radius = torch.hypot(self.row, self.column) / (1 + outline)
        self.opacity = ((1 - self.radius) / uniform(0.1, 0.4, random) + 0.5).clamp(0, 1) * visible
        self.light = (math.cos(light := uniform(0, 2 * math.pi, random)), math.sin(light))

    def raise_(self, images: Images, random: torch.Generator) -> Images:
        """A dome: the surface is magnified and smoothed, lit on one side, dark on the rim, with a highlight."""
        dome = (1 - self.radius.square()).clamp_min(0).sqrt()
        lambert = dome + 0.6 * (self.row * self.light[0] + self.column * self.light[1]) * (self.radius < 1)
        rim = torch.exp(-((self.radius - 1.05) / uniform(0.06, 0.2, random)).square())
        shade = 1 + uniform(0.15, 0.6, random) * (lambert - 0.5) * self.opacity - uniform(0.0, 0.4, random) * rim
        shade = torch.where(self.visible, shade, 1.0).clamp(0.3, 2)
        spot = torch.hypot(self.row - 0.4 * self.light[0], self.column - 0.4 * self.light[1])
        highlight = torch.exp(-(spot / uniform(0.05, 0.2, random)).square()) * self.opacity * choice(0.7, random)
        magnification = uniform(0.5, 0.95, random)
        blur = uniform(1.0, 6.0, random) * min(self.visible.shape) / 256
        reach = 2 * math.ceil(2 * blur) + 1
        raised = {}
        for modality, image in images.items():
            surface = gaussian_blur(self._magnify(image, magnification), reach, blur)
            raised[modality] = torch.lerp(image, surface, self.opacity) * shade + 0.8 * highlight
        return raised

    def redden(self, images: Images, random: torch.Generator) -> Images:
        """More blood: every channel darkens by its absorption in haemoglobin; less blood makes it pale."""
        density = uniform(0.15, 0.8, random) * (1 if choice(0.75, random) else -0.5)
        mottled = density * self.opacity * (0.5 + smooth_noise(*self.opacity.shape, cells=24, random=random))
        absorption = {Modality.WLI: (0.1, 0.75, 0.65), Modality.NBI: (0.6, 1.0, 1.0)}
        return {
            modality: image * torch.exp(-mottled * torch.tensor(absorption[modality])[:, None, None])
            for modality, image in images.items()
        }

    def erode(self, images: Images, random: torch.Generator) -> Images:
        """A fibrin-coated floor, whitish and rough, inside a red rim."""
        floor = ((0.75 - self.radius) / 0.2 + 0.5).clamp(0, 1) * self.visible
        floor = floor * (0.6 + 0.4 * smooth_noise(*floor.shape, cells=32, random=random)) * uniform(0.4, 0.9, random)
        coat = {Modality.WLI: (0.9, 0.85, 0.65), Modality.NBI: (0.75, 0.8, 0.7)}
        rim = uniform(0.2, 0.7, random) * self.opacity * (1 - floor)
        eroded = {}
        for modality, image in images.items():
            colour = torch.tensor(coat[modality])[:, None, None] * image.amax(0).clamp(0.3, 1)
            blood = torch.tensor((0.2, 0.7, 0.6))[:, None, None]
            eroded[modality] = torch.lerp(image * torch.exp(-rim * blood), colour.expand_as(image), floor)
        return eroded

    def texture(self, images: Images, donor: Images, random: torch.Generator) -> Images:
        """Tissue from elsewhere, matched to the brightness of the place."""
        height, width = self.opacity.shape
        shift = random_shift(height, width, random)
        scale = uniform(0.4, 1.0, random)
        opacity = self.opacity * uniform(0.4, 1.0, random)
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
