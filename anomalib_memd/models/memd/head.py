"""The discriminator head: normal or abnormal, for each location and for the image."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.discriminant import Discriminant
from anomalib_memd.components.distance import NearestNormals, NormalDistance
from anomalib_memd.components.evidence import WeighedEvidence
from anomalib_memd.components.statistics import ChannelStandardization, global_statistics

from .options import Head


class Logits(NamedTuple):
    """Two logits (normal, abnormal) on both levels."""

    location: torch.Tensor
    """Shape ``(B, 2, H, W)``."""
    image: torch.Tensor | None = None
    """Shape ``(B, 2)``, unless locations alone were asked for."""
    odds: torch.Tensor | None = None
    """Log odds of each location by all that is known of it, ``(B, 1, H, W)``; with ``image`` or not at all."""


class DiscriminatorHead(nn.Module):
    """Two logits for each location, and two for the image.

    A small network judges locations by ``features``. The image is judged by the *evidence*, one or more maps:
    its logits are linear in the global statistics of the evidence. A head with a discriminant also has log odds
    of each location that are linear in the evidence. It judges the image by four pieces of evidence, two local and two
    global ones, see :meth:`image_evidence`. To the odds of locations it adds how far their features are from normal,
    what the network makes of them, and what is known of the image.

    Args:
        channels: Number of channels of the features from which locations are judged.
        evidence_channels: Number of channels of each map of the evidence.
        parts: Number of maps of the evidence.
        discriminant: Whether there is a discriminant.
        weights: Weights of what is known beside the discriminant, and number of directions; distances are the mean
            over the maps of the evidence.
        hidden: Hidden width of the network.
    """

    def __init__(
        self,
        channels: int,
        evidence_channels: int,
        parts: int = 1,
        discriminant: bool = False,
        weights: Head | None = None,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.location = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, 2, 1),
        )
        self.standardize = ChannelStandardization(parts * evidence_channels)
        self.image = nn.Linear(parts * evidence_channels, 2)
        self.discriminant = nn.Conv2d(parts * evidence_channels, 1, 1) if discriminant else None
        for linear in (self.image, self.discriminant) if self.discriminant is not None else (self.image,):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.weights = weights = weights or Head()
        measured = parts if discriminant and weights.distance_weight else 0
        self.location_distances = nn.ModuleList(NormalDistance(evidence_channels) for _ in range(measured))
        measured = parts if discriminant else 0
        self.image_distances = nn.ModuleList(NearestNormals(evidence_channels) for _ in range(measured))
        self.evidence = WeighedEvidence(4)
        directions = weights.directions if discriminant else 0
        self.register_buffer("directions", torch.zeros(directions, parts * evidence_channels))
        self.directions: torch.Tensor

    def weigh(self, evidence: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the image logits are linear in: the standardised global statistics, of about unit length.

        Args:
            evidence: Maps of shape ``(B, evidence_channels, H, W)``.

        Returns:
            Shape ``(B, parts * evidence_channels)``: of the first map, of the second, ...
        """
        statistics = torch.cat([global_statistics(part) for part in evidence], dim=1)
        return self.standardize(statistics) / self.image.in_features**0.5

    def discriminate(self, evidence: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log odds of each location, linear in the evidence; shape ``(B, 1, H, W)``, in float32.

        Its weights whiten the features, large ones of either sign, so half precision would not do.
        """
        with torch.autocast(evidence[0].device.type, enabled=False):
            odds, start = self.discriminant.bias[:, None, None], 0  # type: ignore[index]
            for part in evidence:
                stop = start + part.shape[1]
                odds = odds + F.conv2d(part.float(), self.discriminant.weight[:, start:stop])  # type: ignore[index]
                start = stop
            return odds

    def project(self, evidence: Sequence[torch.Tensor]) -> torch.Tensor:
        """Each location along the directions of lesions, ``(B, directions, H W)``, in float32."""
        with torch.autocast(evidence[0].device.type, enabled=False):
            parts = zip(evidence, self.directions.split(evidence[0].shape[1], 1), strict=True)
            return torch.stack([directions @ part.float().flatten(2) for part, directions in parts]).sum(0)

    def image_evidence(self, evidence: Sequence[torch.Tensor], among: bool = False) -> torch.Tensor:
        """What speaks for an abnormal image.

        Local evidence is the deviation over locations of their log odds, and that along the directions of lesions,
        both as logarithms. Global evidence is the logarithm of the distance of the pooled features to the nearest
        normal ones, and the discriminant of images.

        Args:
            evidence: Maps of shape ``(B, evidence_channels, H, W)``.
            among: Whether the images are the normal ones that the head was fitted to.

        Returns:
            Shape ``(B, 4)``.
        """
        return self._image_evidence(evidence, self.discriminate(evidence), self.margin(self.weigh(evidence)), among)

    def _image_evidence(
        self, evidence: Sequence[torch.Tensor], odds: torch.Tensor, margin: torch.Tensor, among: bool = False
    ) -> torch.Tensor:
        pooled = [part.mean((-2, -1), dtype=torch.float32) for part in evidence]
        measured = [distance(part, among) for distance, part in zip(self.image_distances, pooled, strict=True)]
        distance = torch.stack(measured).mean(0)
        pieces = [_variance(odds.flatten(2)).log() / 2, _variance(self.project(evidence)).log() / 2, distance.log()]
        return torch.stack([*pieces, margin], 1)

    def margin(self, weighed: torch.Tensor) -> torch.Tensor:
        """Log odds of the image that are linear in the output of :meth:`weigh`; shape ``(B,)``."""
        return log_odds(self.image(weighed))

    @torch.no_grad()
    def set_location_discriminant(self, solution: Discriminant, directions: torch.Tensor) -> None:
        """Take over log odds of locations, linear in the evidence, and directions of lesions in it, ``(K, C)``."""
        self.discriminant.weight.copy_(solution.weight.view_as(self.discriminant.weight))
        self.discriminant.bias.copy_(solution.bias)
        self.directions.copy_(directions)

    @torch.no_grad()
    def set_image_discriminant(self, solution: Discriminant) -> None:
        """Take over log odds of the image, linear in the output of :meth:`weigh`."""
        for row, sign in enumerate((-0.5, 0.5)):
            self.image.weight[row].copy_(sign * solution.weight)
            self.image.bias[row].copy_(sign * solution.bias)

    def forward(self, features: torch.Tensor, evidence: Sequence[torch.Tensor], locations_only: bool = False) -> Logits:
        """Judge an image and its locations.

        Args:
            features: Features of shape ``(B, channels, H, W)``.
            evidence: Maps of shape ``(B, evidence_channels, H, W)``.
            locations_only: Whether the network alone is asked, as in training where all else is solved for.

        Returns:
            Logits of both levels, or of locations.
        """
        location = self.location(features)
        if locations_only:
            return Logits(location)
        weighed = self.weigh(evidence)
        image = self.image(weighed)
        by_network = log_odds(location)[:, None]
        if self.discriminant is None:
            return Logits(location, image, by_network)
        odds = self.discriminate(evidence)
        image = _both(self.evidence(self._image_evidence(evidence, odds, log_odds(image))))
        if self.location_distances:
            measured = [distance(part) for distance, part in zip(self.location_distances, evidence, strict=True)]
            odds = odds + self.weights.distance_weight * torch.stack(measured).mean(0)[:, None]
        by_image = log_odds(image)[:, None, None, None]
        return Logits(
            location, image, odds + self.weights.network_weight * by_network + self.weights.image_weight * by_image
        )


def _variance(maps: torch.Tensor) -> torch.Tensor:
    """Variance of maps ``(B, K, L)`` over their locations, summed over the maps: ``(B,)``, and above 0."""
    return (maps - maps.mean(-1, keepdim=True)).square().mean(-1).sum(1).clamp_min(1e-6)


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Log odds of being abnormal, of shape ``(B, *)``, that two logits ``(B, 2, *)`` mean."""
    return logits[:, 1] - logits[:, 0]


def predict(logits: Logits, size: torch.Size) -> InferenceBatch:
    """Turn logits into a score and a map.

    Both are log odds of being abnormal; the map is brought to the size of the image.

    Args:
        logits: Logits of a student or the teacher, on both levels.
        size: Height and width of the image.

    Returns:
        Raw scores ``(B,)`` and maps ``(B, H, W)``.
    """
    image, odds = (cast("torch.Tensor", part) for part in (logits.image, logits.odds))
    anomaly_map = F.interpolate(odds, size, mode="bilinear", align_corners=False)[:, 0]
    return InferenceBatch(pred_score=log_odds(image), anomaly_map=anomaly_map)


def _both(odds: torch.Tensor) -> torch.Tensor:
    """The two logits, of shape ``(B, 2)``, of which log odds of shape ``(B,)`` are the difference."""
    return torch.stack([-odds, odds], 1) / 2
