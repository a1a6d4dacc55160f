"""PyTorch model of MEMD: the multimodal teacher and one student a modality."""

from collections.abc import Mapping
from enum import StrEnum
from typing import cast

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import TimmFeatureExtractor
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.modality import Branch, Modality
from anomalib_memd.stage import Stage

from .branches import Evidence, Features, ModalityEncoder, Student, Teacher
from .cross_attention import CrossModalFusion
from .discriminator import DiscriminatorHead, Logits, log_odds
from .embedding import FeatureEmbedding
from .masked_attention import EnergyForm, MaskedAttentionReconstruction
from .statistics import FeatureStatistics


class Fusion(StrEnum):
    """Which parts of the multimodal fusion are in place, for the paper's ablation."""

    NONE = "none"
    """No reconstruction; the teacher adds the two modalities."""
    MAR = "mar"
    CMCA = "cmca"
    BOTH = "both"


class Distillation(StrEnum):
    """Which students there are, for the paper's ablation."""

    NONE = "none"
    """None: the teacher alone."""
    SHARED = "shared"
    """One student for both modalities."""
    PER_MODALITY = "per_modality"
    """One student a modality."""


class MEMDModel(nn.Module):
    """Backbone, teacher and students.

    Called with images it is the student of :attr:`modality`, which is also what is exported.

    Args:
        backbone: Feature extractor.
        width: Hidden width of encoders, fusion and location logits.
        fusion: Parts of the fusion that are in place.
        fusion_layers: Number of cross attention layers.
        fusion_heads: Number of attention heads.
        mar_kernel_size: Kernel size ``k`` of the reconstruction.
        mar_distance: Distance ``d`` of its kernels from the centre.
        energy: Form of its SimAM attention.
        residual: Whether the reconstruction is added to what it reconstructs.
        distance_weight: See :class:`.DiscriminatorHead`.
        contrast_weight: See :class:`.DiscriminatorHead`.
        network_weight: See :class:`.DiscriminatorHead`.
        image_weight: See :class:`.DiscriminatorHead`.
        teacher_evidence: From what the teacher judges the image.
        student_evidence: From what the students judge the image.
        distillation: Which students there are.
        modality: Modality of the student that is called.
        distils: Whether the students learn from the teacher.
    """

    def __init__(
        self,
        backbone: TimmFeatureExtractor,
        width: int = 256,
        fusion: Fusion | str = Fusion.BOTH,
        fusion_layers: int = 2,
        fusion_heads: int = 8,
        mar_kernel_size: int = 1,
        mar_distance: int = 1,
        energy: EnergyForm | str = EnergyForm.SIMAM,
        residual: bool = True,
        distance_weight: float = 1.0,
        contrast_weight: float = 0.5,
        network_weight: float = 0.5,
        image_weight: float = 0.25,
        teacher_evidence: Evidence | str = Evidence.BACKBONE,
        student_evidence: Evidence | str = Evidence.BACKBONE,
        distillation: Distillation | str = Distillation.PER_MODALITY,
        modality: Modality | str = Modality.WLI,
        distils: bool = True,
    ) -> None:
        super().__init__()
        self.distils = distils
        fusion, distillation = Fusion(fusion), Distillation(distillation)
        self.embedding = FeatureEmbedding(backbone)
        self.modality = Modality(modality)
        channels = self.embedding.channels
        weights = distance_weight, contrast_weight, network_weight, image_weight

        def encoder() -> ModalityEncoder:
            reconstruction = (
                MaskedAttentionReconstruction(width, mar_kernel_size, mar_distance, energy)
                if fusion in {Fusion.MAR, Fusion.BOTH}
                else None
            )
            return ModalityEncoder(channels, width, reconstruction, residual)

        def head(evidence: Evidence, modalities: int) -> DiscriminatorHead:
            if evidence is Evidence.ENCODING:
                return DiscriminatorHead(width, width)
            return DiscriminatorHead(width, channels, modalities, True, *weights)

        teacher_evidence, student_evidence = Evidence(teacher_evidence), Evidence(student_evidence)
        self.teacher = Teacher(
            {modality: encoder() for modality in Modality},
            CrossModalFusion(width, fusion_layers, fusion_heads) if fusion in {Fusion.CMCA, Fusion.BOTH} else None,
            head(teacher_evidence, len(Modality)),
            teacher_evidence,
        )
        self.students = nn.ModuleDict()
        if distillation is not Distillation.NONE:
            for own in Modality:
                shared = distillation is Distillation.SHARED and len(self.students) > 0
                self.students[own.value] = (
                    self.students[Modality.WLI.value]
                    if shared
                    else Student(encoder(), head(student_evidence, 1), student_evidence)
                )
        self._in_training: list[nn.Module] = []

    def student(self, modality: Modality) -> Student:
        """The student of a modality."""
        return self.students[modality.value]  # type: ignore[return-value]

    def heads(self, stage: Stage) -> list[tuple[DiscriminatorHead, list[Modality]]]:
        """The heads of a stage, each with the modalities whose features are its evidence."""
        if stage is Stage.TEACHER:
            return [(self.teacher.head, list(Modality))]
        return [(self.student(modality).head, [modality]) for modality in Modality]

    @property
    def distils_evidence(self) -> bool:
        """Whether what is linear in backbone features is distilled, in closed form, besides the network."""
        evidence = {self.teacher.evidence, *(student.evidence for student in self.students.values())}
        return self.distils and evidence == {Evidence.BACKBONE}

    def fit_student_statistics(self, statistics: Mapping[Modality, FeatureStatistics]) -> None:
        """Let each student take over the statistics of its modality; a shared one takes the mean of both."""
        for modality in Modality:
            both = self.student(Modality.WLI) is self.student(Modality.NBI)
            own = [statistics[m] for m in (Modality if both else (modality,))]
            self.student(modality).fit_statistics(
                FeatureStatistics(*(torch.stack(x).mean(0) for x in zip(*own, strict=True)))
            )

    def freeze_for(self, stage: Stage, train_backbone: bool = False) -> None:
        """Let gradients flow into what a stage trains, and keep all else as it is, statistics included.

        Args:
            stage: The stage.
            train_backbone: Whether the backbone learns together with the teacher.
        """
        self._in_training = [self.teacher] if stage is Stage.TEACHER else [self.students]
        if train_backbone and stage is Stage.TEACHER:
            self._in_training.append(self.embedding)
        self.requires_grad_(False)
        for part in self._in_training:
            part.requires_grad_(True)
        # What is solved for is not trained.
        for part in (self.teacher, *self.students.values()):
            if part.head.discriminant is not None:
                part.head.discriminant.requires_grad_(False)
                if part is self.teacher or self.distils_evidence:
                    part.head.image.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "MEMDModel":
        """Set training mode, but only where the current stage trains."""
        super().train(False)
        self.training = mode
        for part in self._in_training:
            part.train(mode)
        return self

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Judge images of one modality by their student.

        Args:
            images: Normalised images of :attr:`modality`, shape ``(B, 3, H, W)``.

        Returns:
            Raw scores ``(B,)`` and maps ``(B, H, W)``, in log odds.
        """
        return predict(self.student(self.modality)(self.embedding(images)), images.shape[-2:])

    def judge(self, branch: Branch, features: Features, size: torch.Size) -> InferenceBatch:
        """What a detector makes of features that are at hand.

        Args:
            branch: The teacher or a student.
            features: Backbone features of the modalities that it looks at, each ``(B, C, h, w)``.
            size: Height and width of the map.

        Returns:
            See :func:`predict`.
        """
        if branch is Branch.TEACHER:
            return predict(self.teacher(features).logits, size)
        modality = Modality(branch.value)
        return predict(self.student(modality)(features[modality]), size)


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
