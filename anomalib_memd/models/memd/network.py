"""The detectors that are trained, as the paper has them: the teacher of pairs, and the student of one modality."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.embedding import ImageFeatures
from anomalib_memd.components.statistics import ChannelStandardization, FeatureStatistics, Whitening
from anomalib_memd.modality import Modality

from .cross_attention import CrossModalFusion
from .head import DiscriminatorHead, log_odds
from .judgement import Detector, Judgement, deviation
from .masked_attention import MaskedAttentionReconstruction
from .options import Encoder, Fusion

Maps = Mapping[Modality, torch.Tensor]
"""A map ``(B, C, H, W)`` of each modality."""


class ModalityEncoder(nn.Module):
    """From backbone features to what fusion and head see: standardise, project and reconstruct.

    Args:
        channels: Number of backbone channels.
        options: Width, standardisation, noise and reconstruction.
    """

    def __init__(self, channels: int, options: Encoder) -> None:
        super().__init__()
        self.standardize = (
            ChannelStandardization(channels) if options.whitening is None else Whitening(channels, options.whitening)
        )
        self.project = nn.Conv2d(channels, options.width, 1)
        self.reconstruction = (
            MaskedAttentionReconstruction(options.width, options.mar_kernel_size, options.mar_distance, options.energy)
            if options.fusion in {Fusion.MAR, Fusion.BOTH, Fusion.GATED}
            else None
        )
        self.residual = options.residual

    def fit_statistics(self, statistics: FeatureStatistics) -> None:
        """Take over the statistics of the normal training images."""
        if isinstance(self.standardize, Whitening):
            self.standardize.fit(statistics.mean[0], statistics.covariance[0])
        else:
            self.standardize.fit(statistics.mean[0], statistics.std[0])

    def forward(self, features: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Encode features of shape ``(B, C, H, W)`` as ``(B, width, H, W)``.

        Args:
            features: Backbone features.
            noise: What is added to them once they are standardised, of the same shape.
        """
        # The mean goes in 32 bits. Once it is gone, half precision will do in training.
        # Standardisation goes into the projection, which saves several passes over the widest map there is.
        centred = features.float() - self.standardize.mean[:, None, None]
        x = F.conv2d(centred, self.standardize.before(self.project.weight), self.project.bias)
        if noise is not None:
            x = x + F.conv2d(noise, self.project.weight)
        if self.reconstruction is None:
            return x
        return x + self.reconstruction(x) if self.residual else self.reconstruction(x)


def judged(logits: torch.Tensor) -> Judgement:
    """What learned logits ``(B, 2, H, W)`` say: of an image, how far the log odds of its locations deviate."""
    odds = log_odds(logits.float())
    return Judgement(deviation(odds.flatten(1)[:, None]), odds[:, None])


class Student(Detector):
    """The network of one modality: encoder and discriminator head.

    Args:
        channels: Number of backbone channels.
        options: Options of the encoder and the head.
    """

    def __init__(self, channels: int, options: Encoder) -> None:
        super().__init__()
        self.encoder = ModalityEncoder(channels, options)
        self.head = DiscriminatorHead(options.width, options.hidden)

    def fit_statistics(self, statistics: Sequence[FeatureStatistics]) -> None:
        """Take over the statistics of the normal training images of its modality."""
        self.encoder.fit_statistics(*statistics)

    def logits(self, features: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Logits ``(B, 2, H, W)`` of backbone features ``(B, C, H, W)``, and of noise on them."""
        return self.head(self.encoder(features, noise))

    def forward(self, features: Sequence[ImageFeatures]) -> Judgement:
        """Judge backbone features of one modality."""
        return judged(self.logits(features[0].map))


class TeacherOutput(NamedTuple):
    """What the teacher makes of a pair."""

    logits: torch.Tensor
    """Shape ``(B, 2, H, W)``."""
    encodings: dict[Modality, torch.Tensor]
    """Encoding of each modality, ``(B, width, H, W)``."""
    fusion: torch.Tensor
    """``x_fusion``, ``(B, width, H, W)``."""


class Teacher(Detector):
    """The network of pairs: an encoder for each modality, cross-modal fusion and discriminator head.

    Args:
        channels: Number of backbone channels.
        options: Options of encoders, fusion and head. Without cross attention the two encodings are added.
    """

    def __init__(self, channels: int, options: Encoder) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({modality.value: ModalityEncoder(channels, options) for modality in Modality})
        self.fusion = (
            CrossModalFusion(options.width, options.fusion_layers, options.fusion_heads, options.fusion is Fusion.GATED)
            if options.fusion in {Fusion.CMCA, Fusion.BOTH, Fusion.GATED}
            else None
        )
        self.head = DiscriminatorHead(options.width, options.hidden)

    def fit_statistics(self, statistics: Sequence[FeatureStatistics]) -> None:
        """Take over the statistics of the normal training images of each modality."""
        for encoder, own in zip(self.encoders.values(), statistics, strict=True):
            encoder.fit_statistics(own)  # type: ignore[operator]

    def channel_deviations(self) -> dict[Modality, torch.Tensor]:
        """Deviation of each backbone channel over the normal training images, ``(C,)`` for each modality."""
        return {modality: self.encoders[modality.value].standardize.std for modality in Modality}

    def fuse(self, features: Maps, noise: Maps | None = None) -> TeacherOutput:
        """Logits, encodings and fusion of backbone features of both modalities, each ``(B, C, H, W)``, and of noise."""
        encodings = {m: self.encoders[m.value](features[m], None if noise is None else noise[m]) for m in Modality}
        wli, nbi = encodings[Modality.WLI], encodings[Modality.NBI]
        fusion = wli + nbi if self.fusion is None else self.fusion(wli, nbi)
        return TeacherOutput(self.head(fusion), encodings, fusion)

    def forward(self, features: Sequence[ImageFeatures]) -> Judgement:
        """Judge backbone features of white and of narrow band light."""
        return judged(self.fuse({m: own.map for m, own in zip(Modality, features, strict=True)}).logits)
