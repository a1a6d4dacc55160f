"""The detectors of MEMD: the teacher of pairs, and the student of one modality."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.embedding import Features
from anomalib_memd.components.statistics import ChannelStandardization, FeatureStatistics
from anomalib_memd.modality import Modality

from .cross_attention import CrossModalFusion
from .head import DiscriminatorHead, Logits, predict
from .masked_attention import MaskedAttentionReconstruction
from .options import Evidence


class ModalityEncoder(nn.Module):
    """From backbone features to what fusion and location logits see: standardise, project and reconstruct.

    Args:
        channels: Number of backbone channels.
        width: Number of channels of the projection and all after it.
        reconstruction: Masked attention reconstruction, or ``None`` to leave it out.
        residual: Whether the projection is added to its reconstruction, so that a location keeps its own
            features beside what its surroundings tell.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        reconstruction: MaskedAttentionReconstruction | None,
        residual: bool,
    ) -> None:
        super().__init__()
        self.standardize = ChannelStandardization(channels)
        self.project = nn.Conv2d(channels, width, 1)
        self.reconstruction = reconstruction
        self.residual = residual

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Encode features of shape ``(B, C, H, W)`` as ``(B, width, H, W)``."""
        # Standardisation goes into the projection, which saves several passes over the widest map there is.
        weight = self.project.weight / self.standardize.std[:, None, None]
        bias = self.project.bias - weight.flatten(1) @ self.standardize.mean
        x = F.conv2d(features, weight, bias)
        if self.reconstruction is None:
            return x
        return x + self.reconstruction(x) if self.residual else self.reconstruction(x)


class Student(nn.Module):
    """A detector of one modality: encoder and discriminator head.

    Args:
        encoder: Encoder of the modality.
        head: Discriminator head.
        evidence: From what the head judges the image.
    """

    def __init__(self, encoder: ModalityEncoder, head: DiscriminatorHead, evidence: Evidence) -> None:
        super().__init__()
        self.evidence = evidence
        self.encoder = encoder
        self.head = head

    def fit_statistics(self, statistics: FeatureStatistics) -> None:
        """Take over the statistics of the normal training images."""
        self.encoder.standardize.fit(statistics.mean, statistics.std)
        if self.evidence is Evidence.BACKBONE:
            self.head.standardize.fit(statistics.global_mean, statistics.global_std)

    def forward(self, features: torch.Tensor, locations_only: bool = False) -> Logits:
        """Judge backbone features of shape ``(B, C, H, W)``; see :meth:`.DiscriminatorHead.forward`."""
        encoding = self.encoder(features)
        return self.head(encoding, [encoding if self.evidence is Evidence.ENCODING else features], locations_only)

    def predict(self, features: Sequence[torch.Tensor], size: torch.Size) -> InferenceBatch:
        """Score and map, see :func:`.predict`, of the one map of backbone features ``(B, C, H, W)``."""
        return predict(self(*features), size)


class TeacherOutput(NamedTuple):
    """What the teacher makes of a pair."""

    logits: Logits
    encodings: dict[Modality, torch.Tensor]
    """Encoding of each modality, ``(B, width, H, W)``."""
    fusion: torch.Tensor
    """``x_fusion``, ``(B, width, H, W)``."""


class Teacher(nn.Module):
    """The detector of pairs: an encoder for each modality, cross-modal fusion and discriminator head.

    Args:
        encoders: Encoders of both modalities.
        fusion: Cross attention from white light to narrow band; ``None`` adds the two encodings.
        head: Discriminator head.
        evidence: From what the head judges the image.
    """

    def __init__(
        self,
        encoders: Mapping[Modality, ModalityEncoder],
        fusion: CrossModalFusion | None,
        head: DiscriminatorHead,
        evidence: Evidence,
    ) -> None:
        super().__init__()
        self.evidence = evidence
        self.encoders = nn.ModuleDict({modality.value: encoder for modality, encoder in encoders.items()})
        self.fusion = fusion
        self.head = head

    def fit_statistics(self, statistics: Mapping[Modality, FeatureStatistics]) -> None:
        """Take over the statistics of the normal training images of each modality."""
        for modality in Modality:
            self.encoders[modality.value].standardize.fit(statistics[modality].mean, statistics[modality].std)
        if self.evidence is Evidence.BACKBONE:
            both = [statistics[modality] for modality in Modality]
            self.head.standardize.fit(
                torch.cat([own.global_mean for own in both]), torch.cat([own.global_std for own in both])
            )

    def channel_deviations(self) -> dict[Modality, torch.Tensor]:
        """Deviation of each backbone channel over the normal training images, ``(C,)`` for each modality."""
        return {modality: self.encoders[modality.value].standardize.std for modality in Modality}

    def forward(self, features: Features, locations_only: bool = False) -> TeacherOutput:
        """Judge a pair.

        Args:
            features: Backbone features of both modalities, each ``(B, C, H, W)``.
            locations_only: See :meth:`.DiscriminatorHead.forward`.

        Returns:
            Logits, encodings and fusion.
        """
        encodings = {m: self.encoders[m.value](features[m]) for m in Modality}
        wli, nbi = encodings[Modality.WLI], encodings[Modality.NBI]
        fusion = wli + nbi if self.fusion is None else self.fusion(wli, nbi)
        evidence = [fusion] if self.evidence is Evidence.ENCODING else [features[m] for m in Modality]
        return TeacherOutput(self.head(fusion, evidence, locations_only), encodings, fusion)

    def predict(self, features: Sequence[torch.Tensor], size: torch.Size) -> InferenceBatch:
        """Score and map, see :func:`.predict`, of the backbone features of white and of narrow band light."""
        return predict(self(dict(zip(Modality, features, strict=True))).logits, size)
