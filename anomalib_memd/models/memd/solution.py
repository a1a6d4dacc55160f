"""Solve for what is linear in backbone features: the teacher by drawn lesions, the students by the teacher."""

from collections.abc import Iterable, Mapping, Sequence

import torch

from anomalib_memd.modality import Modality

from .discriminant import (
    Discriminant,
    image_discriminant,
    location_discriminant,
    whitened,
    whitened_among_samples,
)
from .discriminator import DiscriminatorHead
from .statistics import FeatureStatistics
from .torch_model import Features, MEMDModel, Teacher


@torch.no_grad()
def solve_teacher(
    teacher: Teacher,
    normals: Iterable[Features],
    negatives: Iterable[tuple[Features, Features, Features]],
    statistics: Mapping[Modality, FeatureStatistics],
    shrinkage: float,
    ridge: float,
) -> None:
    """Solve for what is linear in the backbone features of the teacher, which no step of training changes.

    Both levels have the mean of the log odds that each modality has by itself: together they would tell a
    drawn lesion by what drawing does to one image and not to the other.

    Args:
        teacher: The teacher, its statistics in place.
        normals: Batches of features of all normal pairs.
        negatives: Batches of features of normal pairs, of negatives made of them, each ``(B, C, H, W)``, and
            of the fractions of each location that were changed, ``(B, H, W)``.
        statistics: Of the normal features of each modality.
        shrinkage: See :func:`~.discriminant.location_discriminant`.
        ridge: See :func:`~.discriminant.image_discriminant`.
    """
    normal = torch.cat([teacher.head.weigh(list(features.values())) for features in normals])
    change, covered = dict.fromkeys(Modality, torch.zeros((), device=normal.device)), 0
    abnormal, images = torch.zeros_like(normal[0]), 0
    for before, after, masks in negatives:
        abnormal += teacher.head.weigh(list(after.values())).sum(0)
        images += len(after[Modality.WLI])
        for modality in Modality:
            inside = masks[modality] > 0.5
            difference = (after[modality] - before[modality]).movedim(1, -1)[inside]
            change[modality] = change[modality] + difference.float().sum(0)
            covered += len(difference)
    covered = max(1, covered // len(Modality))
    solutions = []
    for modality in Modality:
        covariance, mean = (x.to(normal.device) for x in (statistics[modality].covariance, statistics[modality].mean))
        solutions.append(location_discriminant(covariance, mean, change[modality] / covered, shrinkage))
    teacher.head.set_location_discriminant(_mean(solutions))
    # The head sees statistics of unit length; the ridge is meant for statistics of unit deviation.
    ridge, change_of_image = ridge / normal.shape[1], abnormal / images - normal.mean(0)
    parts = zip(normal.chunk(2, dim=1), change_of_image.chunk(2), strict=True)
    teacher.head.set_image_discriminant(_mean([image_discriminant(*part, ridge) for part in parts]))


@torch.no_grad()
def solve_students(
    model: MEMDModel,
    normals: Iterable[Features],
    negatives: Iterable[Features],
    statistics: Mapping[Modality, FeatureStatistics],
    registered: bool,
    shrinkage: float,
    ridge: float,
) -> None:
    """Distil what is linear in backbone features: each student predicts the teacher's from its own modality.

    That is the least squares solution over the locations of normal images, and over normal images and
    negatives. Without partners the teacher sees the one image in both inputs.

    Args:
        model: The model, its teacher solved for and the students' statistics in place.
        normals: Batches of features of normal images.
        negatives: Batches of features of negatives made of them.
        statistics: Of the normal features.
        registered: Whether the two modalities show the same tissue.
        shrinkage: See :func:`~.discriminant.location_discriminant`.
        ridge: See :func:`~.discriminant.image_discriminant`.
    """
    fits = {m: _LinearDistillation(model.student(m).head, model.teacher.head, statistics[m].mean) for m in Modality}
    for batches, are_normal in ((normals, True), (negatives, False)):
        for features in batches:
            for modality, fit in fits.items():
                given = [features[other if registered else modality] for other in Modality]
                fit.take_in_images(features[modality], given)
                if are_normal:
                    fit.take_in_locations(features[modality], given)
    solutions = {m: fit.solve(statistics[m].covariance, shrinkage, ridge) for m, fit in fits.items()}
    if model.student(Modality.WLI) is model.student(Modality.NBI):
        both = zip(*solutions.values(), strict=True)
        solution = [Discriminant(*(torch.stack(x).mean(0) for x in zip(*pair, strict=True))) for pair in both]
        solutions = dict.fromkeys(Modality, solution)
    for modality, (location, image) in solutions.items():
        model.student(modality).head.set_location_discriminant(location)
        model.student(modality).head.set_image_discriminant(image)


def _mean(solutions: Sequence[Discriminant]) -> Discriminant:
    """The mean of the log odds that each solution has on its own part of a vector."""
    return Discriminant(
        torch.cat([solution.weight for solution in solutions]) / len(solutions),
        torch.stack([solution.bias for solution in solutions]).mean(),
    )


class _LinearDistillation:
    """Least squares prediction of a teacher's linear log odds by a student's evidence.

    Args:
        student: Head of the student.
        teacher: Head of the teacher.
        mean: Mean of the student's evidence, ``(C,)``.
    """

    def __init__(self, student: DiscriminatorHead, teacher: DiscriminatorHead, mean: torch.Tensor) -> None:
        self.student, self.teacher, self.mean = student, teacher, mean
        self.product, self.total, self.count = torch.zeros_like(mean), 0.0, 0
        self.statistics: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []

    def take_in_locations(self, features: torch.Tensor, given: Sequence[torch.Tensor]) -> None:
        """Take in the student's features of some images ``(B, C, H, W)``, and those that the teacher is given."""
        self.mean, self.product = self.mean.to(features.device), self.product.to(features.device)
        odds = self.teacher.discriminate(given)[:, 0]
        self.product += torch.einsum("bchw,bhw->c", features.float() - self.mean[:, None, None], odds)
        self.total += float(odds.sum())
        self.count += odds.numel()

    def take_in_images(self, features: torch.Tensor, given: Sequence[torch.Tensor]) -> None:
        """The same for the level of images."""
        self.statistics.append(self.student.weigh([features]))
        self.targets.append(self.teacher.margin(self.teacher.weigh(given)))

    def solve(self, covariance: torch.Tensor, shrinkage: float, ridge: float) -> tuple[Discriminant, Discriminant]:
        """The student's log odds of a location and of the image."""
        weight = whitened(covariance.to(self.product.device), self.product / self.count, shrinkage)
        location = Discriminant(weight, self.total / self.count - weight @ self.mean)
        statistics, targets = torch.cat(self.statistics), torch.cat(self.targets)
        centred = statistics - statistics.mean(0)
        weight = whitened_among_samples(centred, targets @ centred / len(targets), ridge / statistics.shape[1])
        return location, Discriminant(weight, targets.mean() - weight @ statistics.mean(0))
