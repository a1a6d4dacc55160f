"""The detector that is solved for: it weighs a few pieces of evidence on backbone features."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.discriminant import Discriminant
from anomalib_memd.components.distance import NearestNormals, NormalDistance
from anomalib_memd.components.evidence import WeighedEvidence
from anomalib_memd.components.statistics import ChannelStandardization, FeatureStatistics, global_statistics

from .judgement import Detector, Judgement, deviation
from .options import Head


class EvidenceDetector(Detector):
    """Judges backbone features of one modality, or of both, by what is solved for.

    Log odds of locations are linear in the features. The image is judged by three pieces of evidence, a local one
    and two global ones, see :meth:`image_evidence`. To the odds of locations it adds how far their features are from
    normal, and what is known of the image. The teacher looks at two maps, a student at one.

    Args:
        channels: Number of channels of each map.
        parts: Number of maps; distances are the mean over them.
        options: Weights of what is known of locations beside the discriminant.
    """

    def __init__(self, channels: int, parts: int, options: Head) -> None:
        super().__init__()
        self.standardize = ChannelStandardization(parts * channels)
        self.image = nn.Linear(parts * channels, 1)
        self.discriminant = nn.Conv2d(parts * channels, 1, 1)
        for linear in (self.image, self.discriminant):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.distance_weight, self.image_weight = options.distance_weight, options.image_weight
        measured = parts if options.distance_weight else 0
        self.location_distances = nn.ModuleList(NormalDistance(channels) for _ in range(measured))
        self.image_distances = nn.ModuleList(NearestNormals(channels) for _ in range(parts))
        self.evidence = WeighedEvidence(3)

    def fit_statistics(self, statistics: Sequence[FeatureStatistics]) -> None:
        """Take over the statistics of the normal training images, of each map."""
        self.standardize.fit(
            torch.cat([own.global_mean for own in statistics]), torch.cat([own.global_std for own in statistics])
        )

    def weigh(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the discriminant of images is linear in: the standardised global statistics, of about unit length.

        Args:
            features: Maps of shape ``(B, channels, H, W)``.

        Returns:
            Shape ``(B, parts * channels)``: of the first map, of the second, ...
        """
        statistics = torch.cat([global_statistics(part) for part in features], dim=1)
        return self.standardize(statistics) / self.image.in_features**0.5

    def discriminate(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log odds of each location, linear in the features; shape ``(B, 1, H, W)``, in float32.

        Its weights whiten the features, large ones of either sign, so half precision would not do.
        """
        with torch.autocast(features[0].device.type, enabled=False):
            odds, start = self.discriminant.bias[:, None, None], 0  # type: ignore[index]
            for part in features:
                stop = start + part.shape[1]
                odds = odds + F.conv2d(part.float(), self.discriminant.weight[:, start:stop])
                start = stop
            return odds

    def margin(self, weighed: torch.Tensor) -> torch.Tensor:
        """Log odds of the image that are linear in the output of :meth:`weigh`; shape ``(B,)``."""
        return self.image(weighed)[:, 0]

    def image_evidence(self, features: Sequence[torch.Tensor], among: bool = False) -> torch.Tensor:
        """What speaks for an abnormal image.

        Local evidence is the logarithm of the deviation over locations of their log odds. Global evidence is that of
        the distance of the pooled features to the nearest normal ones, and the discriminant of images.

        Args:
            features: Maps of shape ``(B, channels, H, W)``.
            among: Whether the images are the normal ones that the detector was fitted to.

        Returns:
            Shape ``(B, 3)``.
        """
        return self._image_evidence(features, self.discriminate(features), among)

    def _image_evidence(
        self, features: Sequence[torch.Tensor], odds: torch.Tensor, among: bool = False
    ) -> torch.Tensor:
        pooled = [part.mean((-2, -1), dtype=torch.float32) for part in features]
        measured = [distance(part, among) for distance, part in zip(self.image_distances, pooled, strict=True)]
        local = deviation(odds.flatten(2)).log()
        return torch.stack([local, torch.stack(measured).mean(0).log(), self.margin(self.weigh(features))], 1)

    @torch.no_grad()
    def set_location_discriminant(self, solution: Discriminant) -> None:
        """Take over log odds of locations, linear in the features."""
        self.discriminant.weight.copy_(solution.weight.view_as(self.discriminant.weight))
        self.discriminant.bias.copy_(solution.bias)

    @torch.no_grad()
    def set_image_discriminant(self, solution: Discriminant) -> None:
        """Take over log odds of the image, linear in the output of :meth:`weigh`."""
        self.image.weight.copy_(solution.weight[None])
        self.image.bias.copy_(solution.bias)

    def forward(self, features: Sequence[torch.Tensor]) -> Judgement:
        """Judge backbone features, one map ``(B, channels, H, W)`` a modality."""
        odds = self.discriminate(features)
        image = self.evidence(self._image_evidence(features, odds))
        if self.location_distances:
            measured = [distance(part) for distance, part in zip(self.location_distances, features, strict=True)]
            odds = odds + self.distance_weight * torch.stack(measured).mean(0)[:, None]
        return Judgement(image, odds + self.image_weight * image[:, None, None, None])
