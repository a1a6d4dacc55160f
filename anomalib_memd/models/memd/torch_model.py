"""PyTorch model of MEMD: the multimodal teacher and one student a modality."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import TimmFeatureExtractor
from torch import nn

from anomalib_memd.components.embedding import FeatureEmbedding, Features
from anomalib_memd.components.negatives import FeatureNoise
from anomalib_memd.components.solution import fit_distances, solve_by_negatives, solve_students
from anomalib_memd.components.statistics import FeatureStatistics
from anomalib_memd.components.training_features import FeatureSet
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.components.weighing import calibrate_evidence
from anomalib_memd.modality import Branch, Modality

from .evidence import EvidenceDetector
from .network import Student, Teacher
from .options import Distillation, Encoder, Evidence, Head, Students


class MEMDModel(nn.Module):
    """Backbone, teacher and students.

    Called with images it is the student of :attr:`modality`, which is also what is exported.

    Args:
        backbone: Feature extractor.
        encoder: Options of networks.
        head: What detectors judge by.
        distillation: Options of the students.
        modality: Modality of the student that is called.

    Raises:
        ValueError: If one student is to serve both modalities, solved for, and is not distilled.
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
        self.learns = head.evidence is Evidence.ENCODING
        """Whether detectors are networks that are trained; if not, all of them is solved for."""
        self.embedding = FeatureEmbedding(backbone, overview=head.overview and not self.learns)
        self.modality = Modality(modality)
        channels = self.embedding.channels

        def student() -> nn.Module:
            return Student(channels, encoder) if self.learns else EvidenceDetector(channels, 1, head)

        self.teacher = Teacher(channels, encoder) if self.learns else EvidenceDetector(channels, len(Modality), head)
        self.students = nn.ModuleDict()
        if distillation.students is Students.SHARED:
            if not self.learns and not self.distils:
                msg = (
                    "One student for both modalities is solved for by its teacher; distillation.weight must be above 0."
                )
                raise ValueError(msg)
            self.students.update(dict.fromkeys((modality.value for modality in Modality), student()))
        elif distillation.students is Students.PER_MODALITY:
            self.students.update({modality.value: student() for modality in Modality})
        self._in_training: list[nn.Module] = []

    def student(self, modality: Modality) -> Any:
        """The student of a modality."""
        return self.students[modality.value]

    def detectors(self, stage: Stage) -> list[tuple[Any, list[Modality]]]:
        """The detectors of a stage, each with the modalities that it looks at."""
        if stage is Stage.TEACHER:
            return [(self.teacher, list(Modality))]
        return [(self.student(modality), [modality]) for modality in Modality]

    def fit_statistics(self, stage: Stage, statistics: Mapping[Modality, FeatureStatistics]) -> None:
        """Let each detector of a stage take over the statistics of its modalities; a shared one their mean."""
        parts = [list(statistics.values())]
        if stage is Stage.STUDENTS:
            parts = [[own] for own in statistics.values()]
            if self.student(Modality.WLI) is self.student(Modality.NBI):
                mean = FeatureStatistics(*(torch.stack(x).mean(0) for x in zip(*statistics.values(), strict=True)))
                parts = [[mean], [mean]]
        for (detector, _), own in zip(self.detectors(stage), parts, strict=True):
            detector.fit_statistics(own)

    def solve(self, stage: Stage, given: FeatureSet, noise: FeatureNoise, paired_targets: bool, options: Head) -> None:
        """Solve for all of a stage that is not trained: statistics, discriminants and distances.

        Args:
            stage: The stage; the teacher comes first.
            given: Training pairs.
            noise: Noise on the features of negatives.
            paired_targets: Whether the students learn from what the teacher makes of a pair.
            options: Of these, the shrinkages and the ridges.
        """
        statistics = given.statistics
        self.fit_statistics(stage, statistics)
        if self.learns:
            return
        detectors = self.detectors(stage)
        if stage is Stage.STUDENTS and self.distils:
            students = {modality: self.student(modality) for modality in Modality}
            abnormal = (pair.abnormal for pair in given.pairs())
            paired = paired_targets and given.registered
            solve_students(
                students,
                self.teacher,
                given.normals(),
                abnormal,
                statistics,
                paired,
                options.shrinkages,
                options.ridge,
            )
        else:
            scales = {modality: own.std[0] for modality, own in statistics.items()}
            for detector, modalities in detectors:
                noisy = (pair.with_noise(noise, scales) for pair in given.pairs())
                negatives = ((pair.normal, pair.abnormal, pair.masks) for pair in noisy)
                solve_by_negatives(
                    detector,
                    modalities,
                    given.normals(),
                    negatives,
                    statistics,
                    options.shrinkages,
                    options.ridges,
                )
        fit_distances(detectors, given.normals(), statistics)
        calibrate_evidence(detectors, given.normals())

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
            Raw scores ``(B,)`` and maps ``(B, H, W)``.
        """
        return self.student(self.modality).predict([self.embedding(images)], images.shape[-2:])

    def judge(self, branch: Branch, features: Features, size: Sequence[int]) -> InferenceBatch:
        """What a detector makes of features that are at hand.

        Args:
            branch: The teacher or a student.
            features: Backbone features of the modalities that it looks at.
            size: Height and width of the map.

        Returns:
            See :meth:`forward`.
        """
        if branch is Branch.TEACHER:
            return self.teacher.predict([features[modality] for modality in Modality], size)
        modality = Modality(branch.value)
        return self.student(modality).predict([features[modality]], size)
