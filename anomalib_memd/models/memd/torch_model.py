"""PyTorch model of MEMD: the multimodal teacher and one student a modality."""

from collections.abc import Mapping

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import TimmFeatureExtractor
from torch import nn

from anomalib_memd.components.embedding import FeatureEmbedding, Features
from anomalib_memd.components.negatives import FeatureNoise
from anomalib_memd.components.solution import fit_distances, solve_students, solve_teacher
from anomalib_memd.components.statistics import FeatureStatistics
from anomalib_memd.components.training_features import FeatureSet
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.components.weighing import calibrate_evidence
from anomalib_memd.modality import Branch, Modality

from .cross_attention import CrossModalFusion
from .detectors import ModalityEncoder, Student, Teacher
from .head import DiscriminatorHead
from .masked_attention import MaskedAttentionReconstruction
from .options import Distillation, Encoder, Evidence, Fusion, Head, Students


class MEMDModel(nn.Module):
    """Backbone, teacher and students.

    Called with images it is the student of :attr:`modality`, which is also what is exported.

    Args:
        backbone: Feature extractor.
        encoder: Options of encoders and fusion.
        head: Options of heads.
        distillation: Options of the students.
        modality: Modality of the student that is called.
    """

    def __init__(
        self,
        backbone: TimmFeatureExtractor,
        encoder: Encoder | None = None,
        head: Head | None = None,
        distillation: Distillation | None = None,
        modality: Modality | str = Modality.WLI,
    ) -> None:
        super().__init__()
        encoder, head, distillation = encoder or Encoder(), head or Head(), distillation or Distillation()
        self.distils = distillation.weight > 0
        self.embedding = FeatureEmbedding(backbone)
        self.modality = Modality(modality)

        def build_encoder() -> ModalityEncoder:
            reconstruction = (
                MaskedAttentionReconstruction(
                    encoder.width, encoder.mar_kernel_size, encoder.mar_distance, encoder.energy
                )
                if encoder.fusion in {Fusion.MAR, Fusion.BOTH}
                else None
            )
            return ModalityEncoder(self.embedding.channels, encoder.width, reconstruction, encoder.residual)

        def build_head(evidence: Evidence, modalities: int) -> DiscriminatorHead:
            if evidence is Evidence.ENCODING:
                return DiscriminatorHead(encoder.width, encoder.width)
            return DiscriminatorHead(encoder.width, self.embedding.channels, modalities, True, head)

        encoders = {modality: build_encoder() for modality in Modality}
        fusion = (
            CrossModalFusion(encoder.width, encoder.fusion_layers, encoder.fusion_heads)
            if encoder.fusion in {Fusion.CMCA, Fusion.BOTH}
            else None
        )
        self.teacher = Teacher(
            encoders, fusion, build_head(head.teacher_evidence, len(Modality)), head.teacher_evidence
        )
        self.students = nn.ModuleDict()
        if distillation.students is not Students.NONE:
            for own in Modality:
                shared = distillation.students is Students.SHARED and len(self.students) > 0
                self.students[own.value] = (
                    self.students[Modality.WLI.value]
                    if shared
                    else Student(build_encoder(), build_head(head.student_evidence, 1), head.student_evidence)
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

    def solve(self, stage: Stage, given: FeatureSet, noise: FeatureNoise, paired_targets: bool, options: Head) -> None:
        """Solve for all of a stage that is not trained: statistics, discriminants and distances.

        Args:
            stage: The stage; the teacher comes first.
            given: Training pairs.
            noise: Noise on the features of negatives.
            paired_targets: Whether the students learn from what the teacher makes of a pair.
            options: Of these, shrinkage and ridge.
        """
        statistics, strength = given.statistics, (options.shrinkage, options.ridge)
        if stage is Stage.TEACHER:
            self.teacher.fit_statistics(statistics)
            if self.teacher.evidence is Evidence.BACKBONE:
                deviations = self.teacher.channel_deviations()
                noisy = (pair.with_noise(noise, deviations) for pair in given.pairs())
                negatives = ((pair.normal, pair.abnormal, pair.masks) for pair in noisy)
                solve_teacher(self.teacher.head, given.normals(), negatives, statistics, *strength)
        else:
            self.fit_student_statistics(statistics)
            if self.distils_evidence:
                heads = {modality: self.student(modality).head for modality in Modality}
                abnormal = (pair.abnormal for pair in given.pairs())
                paired = paired_targets and given.registered
                solve_students(heads, self.teacher.head, given.normals(), abnormal, statistics, paired, *strength)
        fit_distances(self.heads(stage), given.normals(), statistics)
        calibrate_evidence(self.heads(stage), given.normals())

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
        return self.student(self.modality).predict([self.embedding(images)], images.shape[-2:])

    def judge(self, branch: Branch, features: Features, size: torch.Size) -> InferenceBatch:
        """What a detector makes of features that are at hand.

        Args:
            branch: The teacher or a student.
            features: Backbone features of the modalities that it looks at, each ``(B, C, h, w)``.
            size: Height and width of the map.

        Returns:
            See :func:`.predict`.
        """
        if branch is Branch.TEACHER:
            return self.teacher.predict([features[modality] for modality in Modality], size)
        modality = Modality(branch.value)
        return self.student(modality).predict([features[modality]], size)
