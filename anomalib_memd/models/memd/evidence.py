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


class EvidenceDetector(Detector):
    """Judges backbone features of one modality, or of both, by what is solved for.

    Log odds of locations are linear in the features. The image is judged by a piece of local evidence and by two or
    three of global evidence, see :meth:`image_evidence`. To the odds of locations it adds how far their features are
    from normal, and what is known of the image. The teacher looks at two maps, a student at one.

    Args:
        channels: Number of channels of each map.
        parts: Number of maps; distances are the mean over them.
        options: Weights of what is known of locations beside the discriminant.
    """

    def __init__(self, channels: int, parts: int, options: Head) -> None:
        super().__init__()
        self.image = nn.Linear(parts * channels, 1)
        self.overview = nn.Linear(parts * channels, 1) if options.overview else None
        self.standardize = ChannelStandardization(len(self.images) * parts * channels)
        self.discriminant = nn.Conv2d(parts * channels, 1, 1)
        for linear in (*self.images, self.discriminant):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.distance_weight, self.image_weight = options.distance_weight, options.image_weight
        measured = parts if options.distance_weight else 0
        self.location_distances = nn.ModuleList(NormalDistance(channels) for _ in range(measured))
        self.image_distances = nn.ModuleList(NearestNormals(channels) for _ in range(parts))
        self.evidence = WeighedEvidence(2 + len(self.images))

    @property
    def images(self) -> list[nn.Linear]:
        """The discriminants of images, one for each size."""
        return [self.image] if self.overview is None else [self.image, self.overview]

    def fit_statistics(self, statistics: Sequence[FeatureStatistics]) -> None:
        """Take over the statistics of the normal training images, of each part."""
        mean, std = (
            self._by_size([getattr(own, name)[None] for own in statistics]) for name in ("global_mean", "global_std")
        )
        self.standardize.fit(mean.flatten(), std.flatten())

    def _by_size(self, statistics: Sequence[torch.Tensor]) -> torch.Tensor:
        """Statistics ``(B, S * C)`` of each part as ``(B, S, parts * C)``."""
        return torch.cat([own.unflatten(1, (len(self.images), -1)) for own in statistics], dim=2)

    def weigh(self, features: Sequence[ImageFeatures]) -> torch.Tensor:
        """What the discriminants of images are linear in: standardised statistics of images, of about unit length.

        Args:
            features: Of each part.

        Returns:
            Shape ``(B, S, parts * channels)``, for each size of the image.
        """
        statistics = self._by_size([part.statistics for part in features])
        return self.standardize(statistics.flatten(1)).view_as(statistics) / statistics.shape[2] ** 0.5

    def discriminate(self, features: Sequence[ImageFeatures]) -> torch.Tensor:
        """Log odds of each location, linear in the features; shape ``(B, 1, H, W)``, in float32.

        Its weights whiten the features, large ones of either sign, so half precision would not do.
        """
        with torch.autocast(features[0].map.device.type, enabled=False):
            odds, start = self.discriminant.bias[:, None, None], 0  # type: ignore[index]
            for part in features:
                stop = start + part.map.shape[1]
                odds = odds + F.conv2d(part.map.float(), self.discriminant.weight[:, start:stop])
                start = stop
            return odds

    def margins(self, weighed: torch.Tensor) -> torch.Tensor:
        """Log odds of the image at each size, linear in the output of :meth:`weigh`; shape ``(B, S)``."""
        return torch.cat([image(own) for image, own in zip(self.images, weighed.unbind(1), strict=True)], dim=1)

    def image_evidence(self, features: Sequence[ImageFeatures], among: bool = False) -> torch.Tensor:
        """What speaks for an abnormal image.

        Local evidence is the logarithm of the deviation over locations of their log odds. Global evidence is that of
        the distance of the pooled features to the nearest normal ones, and the discriminant of images at each size.

        Args:
            features: Of each part.
            among: Whether the images are the normal ones that the detector was fitted to.

        Returns:
            Shape ``(B, 2 + S)``.
        """
        return self._image_evidence(features, self.discriminate(features), among)

    def _image_evidence(
        self, features: Sequence[ImageFeatures], odds: torch.Tensor, among: bool = False
    ) -> torch.Tensor:
        pooled = [part.map.mean((-2, -1), dtype=torch.float32) for part in features]
        measured = [distance(part, among) for distance, part in zip(self.image_distances, pooled, strict=True)]
        local = deviation(odds.flatten(2)).log()
        distance = torch.stack(measured).mean(0).log()
        return torch.cat([local[:, None], distance[:, None], self.margins(self.weigh(features))], 1)

    @torch.no_grad()
    def set_location_discriminant(self, solution: Discriminant) -> None:
        """Take over log odds of locations, linear in the features."""
        self.discriminant.weight.copy_(solution.weight.view_as(self.discriminant.weight))
        self.discriminant.bias.copy_(solution.bias)

    @torch.no_grad()
    def set_image_discriminants(self, solutions: Sequence[Discriminant]) -> None:
        """Take over log odds of the image at each size, linear in the output of :meth:`weigh`."""
        for image, solution in zip(self.images, solutions, strict=True):
            image.weight.copy_(solution.weight[None])
            image.bias.copy_(solution.bias)

    def forward(self, features: Sequence[ImageFeatures]) -> Judgement:
        """Judge backbone features of each part."""
        odds = self.discriminate(features)
        image = self.evidence(self._image_evidence(features, odds))
        if self.location_distances:
            measured = [distance(part.map) for distance, part in zip(self.location_distances, features, strict=True)]
            odds = odds + self.distance_weight * torch.stack(measured).mean(0)[:, None]
        return Judgement(image, odds + self.image_weight * image[:, None, None, None])
