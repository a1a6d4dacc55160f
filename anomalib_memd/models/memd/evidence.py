"""The detector that is solved for: it weighs a few pieces of evidence on backbone features."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.discriminant import Discriminant
from anomalib_memd.components.distance import NearestNormals, NormalDistance
from anomalib_memd.components.embedding import ImageFeatures
from anomalib_memd.components.evidence import WeighedEvidence
from anomalib_memd.components.statistics import ChannelStandardization, FeatureStatistics

from .judgement import Detector, Judgement, deviation
from .options import Head

LIMIT = 4.0
"""How far the log odds of the image go at most, in a map that is relative: what is known of all locations together."""


class EvidenceDetector(Detector):
    """Judges backbone features of one modality, or of both, by what is solved for.

    Log odds of locations are linear in the features. The image is judged by a piece of local evidence and by two or
    three of global evidence, see :meth:`image_evidence`. To the odds of locations it adds those at half the size, how
    far their features are from normal, and what is known of the image. The teacher looks at two modalities, a student
    at one.

    A relative map tells where in the image it is abnormal, and by the image's own log odds whether it is.

    Args:
        channels: Number of channels of each map.
        parts: Number of modalities; distances are the mean over them.
        options: Weights of what is known of locations beside the discriminant.
    """

    def __init__(self, channels: int, parts: int, options: Head) -> None:
        super().__init__()
        self.image = nn.Linear(parts * channels, 1)
        self.overview = nn.Linear(parts * channels, 1) if options.overview else None
        self.standardize = ChannelStandardization(len(self.images) * parts * channels)
        self.discriminant = nn.Conv2d(parts * channels, 1, 1)
        self.overview_discriminant = nn.Conv2d(parts * channels, 1, 1) if len(options.shrinkages) > 1 else None
        for linear in (*self.images, *self.locations):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.distance_weight, self.image_weight = options.distance_weight, options.image_weight
        self.relative, self.unit_statistics = options.relative_map, options.unit_statistics
        measured = parts if options.distance_weight else 0
        self.location_distances = nn.ModuleList(NormalDistance(channels) for _ in range(measured))
        self.image_distances = nn.ModuleList(NearestNormals(channels) for _ in range(parts))
        self.evidence = WeighedEvidence(2 + len(self.images))

    @property
    def images(self) -> list[nn.Linear]:
        """The discriminants of images, one for each size."""
        return [self.image] if self.overview is None else [self.image, self.overview]

    @property
    def locations(self) -> list[nn.Conv2d]:
        """The discriminants of locations, one for each size at which they are judged."""
        overview = self.overview_discriminant
        return [self.discriminant] if overview is None else [self.discriminant, overview]

    @property
    def measured_size(self) -> int:
        """Number of the size at which distances of locations are measured: the smallest at which they are judged."""
        return len(self.locations) - 1

    def fit_statistics(self, statistics: Sequence[FeatureStatistics]) -> None:
        """Take over the statistics of the normal training images, of each part."""
        mean = torch.cat([own.global_mean for own in statistics], dim=1)
        std = torch.cat([own.global_std for own in statistics], dim=1)
        self.standardize.fit(mean.flatten(), std.flatten())

    def weigh(self, features: Sequence[ImageFeatures]) -> torch.Tensor:
        """What the discriminants of images are linear in: standardised statistics of images.

        They are of unit length, the same share of it in each part, or about that long.

        Args:
            features: Of each part.

        Returns:
            Shape ``(B, S, parts * channels)``, for each size of the image.
        """
        statistics = torch.cat([part.statistics for part in features], dim=2)
        weighed = self.standardize(statistics.flatten(1)).view_as(statistics) / statistics.shape[2] ** 0.5
        if not self.unit_statistics:
            return weighed
        parts = len(features)
        return F.normalize(weighed.unflatten(2, (parts, -1)), dim=3).flatten(2) / parts**0.5

    def located(self, features: Sequence[ImageFeatures]) -> Sequence[torch.Tensor]:
        """Where an image lies among others, of which the nearest normal ones tell its distance.

        Returns:
            Of each part, shape ``(B, channels)``: its statistics at full size if they are of unit length, or its
            pooled features.
        """
        return self._located(features, self.weigh(features))

    def _located(self, features: Sequence[ImageFeatures], weighed: torch.Tensor) -> Sequence[torch.Tensor]:
        if self.unit_statistics:
            return weighed[:, 0].chunk(len(features), 1)
        return [part.map.mean((-2, -1), dtype=torch.float32) for part in features]

    def discriminate(self, features: Sequence[ImageFeatures]) -> list[torch.Tensor]:
        """Log odds of each location at each size at which they are judged, linear in the features.

        Their weights whiten the features, large ones of either sign, so half precision would not do.

        Returns:
            Of each size, shape ``(B, 1, h, w)``, in float32.
        """
        return [self._odds(features, size) for size in range(len(self.locations))]

    def _odds(self, features: Sequence[ImageFeatures], size: int) -> torch.Tensor:
        discriminant = self.locations[size]
        with torch.autocast(features[0].map.device.type, enabled=False):
            odds, start = discriminant.bias[:, None, None], 0  # type: ignore[index]
            for part in features:
                own = part.maps[size]
                odds = odds + F.conv2d(own.float(), discriminant.weight[:, start : start + own.shape[1]])
                start += own.shape[1]
            return odds

    def margins(self, weighed: torch.Tensor) -> torch.Tensor:
        """Log odds of the image at each size, linear in the output of :meth:`weigh`; shape ``(B, S)``."""
        return torch.cat([image(own) for image, own in zip(self.images, weighed.unbind(1), strict=True)], dim=1)

    def image_evidence(self, features: Sequence[ImageFeatures], among: bool = False) -> torch.Tensor:
        """What speaks for an abnormal image.

        Local evidence is the logarithm of the deviation over locations of their log odds at full size. Global evidence
        is that of the distance to the nearest normal images, see :meth:`located`, and the discriminant of images at
        each size.

        Args:
            features: Of each part.
            among: Whether the images are the normal ones that the detector was fitted to.

        Returns:
            Shape ``(B, 2 + S)``.
        """
        return self._image_evidence(features, self._odds(features, 0), among)

    def _image_evidence(
        self, features: Sequence[ImageFeatures], odds: torch.Tensor, among: bool = False
    ) -> torch.Tensor:
        weighed = self.weigh(features)
        own = self._located(features, weighed)
        measured = [distance(part, among) for distance, part in zip(self.image_distances, own, strict=True)]
        local = deviation(odds.flatten(2)).log()
        distance = torch.stack(measured).mean(0).log()
        return torch.cat([local[:, None], distance[:, None], self.margins(weighed)], 1)

    @torch.no_grad()
    def set_location_discriminants(self, solutions: Sequence[Discriminant]) -> None:
        """Take over log odds of locations at each size, linear in the features."""
        for location, solution in zip(self.locations, solutions, strict=True):
            location.weight.copy_(solution.weight.view_as(location.weight))
            location.bias.copy_(solution.bias)  # type: ignore[union-attr]

    @torch.no_grad()
    def set_image_discriminants(self, solutions: Sequence[Discriminant]) -> None:
        """Take over log odds of the image at each size, linear in the output of :meth:`weigh`."""
        for image, solution in zip(self.images, solutions, strict=True):
            image.weight.copy_(solution.weight[None])
            image.bias.copy_(solution.bias)

    def forward(self, features: Sequence[ImageFeatures]) -> Judgement:
        """Judge backbone features of each part."""
        odds = self.discriminate(features)
        image = self.evidence(self._image_evidence(features, odds[0]))
        whether = image
        if self.relative:
            odds = [own - own.mean((-2, -1), keepdim=True) for own in odds]
            whether = LIMIT * torch.tanh(image / LIMIT)
        if self.location_distances:
            maps = [part.maps[self.measured_size] for part in features]
            measured = [distance(own) for distance, own in zip(self.location_distances, maps, strict=True)]
            odds[-1] = odds[-1] + self.distance_weight * torch.stack(measured).mean(0)[:, None]
        where = odds[0]
        for half in odds[1:]:
            where = where + F.interpolate(half, where.shape[-2:], mode="bilinear", align_corners=False)
        return Judgement(image, where + self.image_weight * whether[:, None, None, None])
