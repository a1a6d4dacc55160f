"""What a detector makes of an image."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.embedding import ImageFeatures


class Judgement(NamedTuple):
    """How much speaks for an abnormal image, and for an abnormal place."""

    image: torch.Tensor
    """Score of each image, ``(B,)``."""
    location: torch.Tensor
    """Log odds of each location, ``(B, 1, h, w)``."""


class Detector(nn.Module):
    """A module that makes a :class:`Judgement` of backbone features, those of each modality that it looks at."""

    def predict(self, features: Sequence[ImageFeatures], size: Sequence[int]) -> InferenceBatch:
        """The judgement as a prediction of anomalib.

        Args:
            features: Backbone features of the modalities that the detector looks at.
            size: Height and width of the images, to which the map is brought.

        Returns:
            Raw scores ``(B,)`` and maps ``(B, H, W)``.
        """
        image, location = self(features)
        anomaly_map = F.interpolate(location, tuple(size), mode="bilinear", align_corners=False)[:, 0]
        return InferenceBatch(pred_score=image, anomaly_map=anomaly_map)


def deviation(maps: torch.Tensor) -> torch.Tensor:
    """How far maps ``(B, K, L)`` deviate over their locations, all K together: ``(B,)``, and above 0."""
    return (maps - maps.mean(-1, keepdim=True)).square().mean(-1).sum(1).clamp_min(1e-6).sqrt()
