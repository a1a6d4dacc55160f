"""Solve for what needs no training: the teacher by negatives, the students by the teacher, distances by normals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import nn

from anomalib_memd.modality import Modality

from .discriminant import (
    Discriminant,
    image_discriminant,
    location_discriminant,
    whitened,
    whitened_among_samples,
)
from .embedding import Features, ImageFeatures
from .evidence import WeighedEvidence
from .feature_cache import shrink
from .statistics import FeatureStatistics


class LinearHead(Protocol):
    """A detector whose log odds are linear in features, which is solved for; see :class:`.EvidenceDetector`."""

    location_distances: nn.ModuleList
    measured_size: int
    image_distances: nn.ModuleList
    evidence: WeighedEvidence

    def weigh(self, evidence: Sequence[ImageFeatures]) -> torch.Tensor:
        """Statistics ``(B, S, P * C)`` of the evidence at each size, in which log odds of the image are linear."""

    def located(self, evidence: Sequence[ImageFeatures]) -> Sequence[torch.Tensor]:
        """Where an image lies among others: of each part a vector, ``(B, C)``."""

    def discriminate(self, evidence: Sequence[ImageFeatures]) -> list[torch.Tensor]:
        """Log odds of locations, ``(B, 1, h, w)``, at each size at which they are judged."""

    def margins(self, weighed: torch.Tensor) -> torch.Tensor:
        """Log odds of the image at each size, ``(B, S)``."""

    def image_evidence(self, evidence: Sequence[ImageFeatures], among: bool = False) -> torch.Tensor:
        """What speaks for an abnormal image, ``(B, N)``; ``among`` tells that the head was fitted to these."""

    def set_location_discriminants(self, solutions: Sequence[Discriminant]) -> None:
        """Take over what log odds of locations are, at each of these sizes."""

    def set_image_discriminants(self, solutions: Sequence[Discriminant]) -> None:
        """Take over what log odds of the image are, at each size."""


@torch.no_grad()
def solve_by_negatives(
    head: LinearHead,
    modalities: Sequence[Modality],
    normals: Iterable[Features],
    negatives: Iterable[tuple[Features, Features, Mapping[Modality, torch.Tensor]]],
    statistics: Mapping[Modality, FeatureStatistics],
    shrinkages: Sequence[float],
    ridges: Sequence[float],
) -> None:
    """Solve for what is linear in backbone features, by what drawing a lesion changes.

    Both levels have the mean of the log odds that each modality has by itself: together they would tell a
    negative by what drawing does to one image and not to the other.

    Args:
        head: The teacher, or a student that learns by itself; its statistics are in place.
        modalities: What it looks at.
        normals: Batches of features of all normal pairs.
        negatives: Batches of features of normal pairs, of negatives made of them, and of the abnormal fraction of each
            location, ``(B, H, W)``: those above a half show what an abnormal place is.
        statistics: Of the normal features of each modality.
        shrinkages: See :func:`~.discriminant.location_discriminant`; of each size at which locations are judged.
        ridges: See :func:`~.discriminant.image_discriminant`; of each size at which the image is judged.
    """
    normal = torch.cat([head.weigh([features[modality] for modality in modalities]) for features in normals])
    changes: list[dict[Modality, list[torch.Tensor]]] = [{modality: [] for modality in modalities} for _ in shrinkages]
    abnormal, images = torch.zeros_like(normal[0]), 0
    for before, after, masks in negatives:
        abnormal += head.weigh([after[modality] for modality in modalities]).sum(0)
        images += len(after[modalities[0]].map)
        shown = torch.stack([masks[modality] for modality in modalities])
        for size, found in enumerate(changes):
            grid = after[modalities[0]].maps[size].shape[-2:]
            inside = (shrink(shown, grid) > 0.5).any(0)
            for modality in modalities:
                found[modality].append(_change(before[modality].maps[size], after[modality].maps[size], inside))
    locations = []
    for size, shrinkage in enumerate(shrinkages):
        solutions = []
        for modality in modalities:
            # The lesions of each image count the same, however large they are.
            lesions, own = torch.cat(changes[size][modality]), statistics[modality]
            mean, covariance = (value[size].to(normal.device) for value in (own.mean, own.covariance))
            change = lesions.sum(0) / max(1, len(lesions))
            solutions.append(location_discriminant(covariance, mean, change, shrinkage))
        locations.append(_mean(solutions))
    head.set_location_discriminants(locations)
    of_images = []
    for seen, change, ridge in zip(normal.unbind(1), abnormal / images - normal.mean(0), ridges, strict=True):
        parts = zip(seen.chunk(len(modalities), 1), change.chunk(len(modalities)), strict=True)
        # The head sees statistics of unit length; the ridge is meant for statistics of unit deviation.
        of_images.append(_mean([image_discriminant(*part, ridge / normal.shape[-1]) for part in parts]))
    head.set_image_discriminants(of_images)


@torch.no_grad()
def solve_students(
    students: Mapping[Modality, LinearHead],
    teacher: LinearHead,
    normals: Iterable[Features],
    negatives: Iterable[Features],
    statistics: Mapping[Modality, FeatureStatistics],
    registered: bool,
    shrinkages: Sequence[float],
    ridge: float,
) -> None:
    """Distil what is linear in backbone features: each student predicts the teacher's from its own modality.

    That is the least squares solution over the locations of normal images, and over normal images and
    negatives. Without partners the teacher sees the one image in both inputs.

    Args:
        students: Head of each student, its statistics in place; one head may serve both.
        teacher: Head of the teacher, solved for.
        normals: Batches of features of normal images.
        negatives: Batches of features of negatives made of them.
        statistics: Of the normal features.
        registered: Whether the two modalities show the same tissue.
        shrinkages: See :func:`~.discriminant.location_discriminant`; of each size at which locations are judged.
        ridge: See :func:`~.discriminant.image_discriminant`.
    """
    fits = {m: _LinearDistillation(students[m], teacher, statistics[m].mean[: len(shrinkages)]) for m in Modality}
    for batches, are_normal in ((normals, True), (negatives, False)):
        for features in batches:
            for modality, fit in fits.items():
                given = [features[other if registered else modality] for other in Modality]
                fit.take_in_images(features[modality], given)
                if are_normal:
                    fit.take_in_locations(features[modality], given)
    solutions = {m: fit.solve(statistics[m].covariance, shrinkages, ridge) for m, fit in fits.items()}
    if students[Modality.WLI] is students[Modality.NBI]:
        solutions = dict.fromkeys(Modality, _Solution.mean(list(solutions.values())))
    for modality, solution in solutions.items():
        students[modality].set_location_discriminants(solution.locations)
        students[modality].set_image_discriminants(solution.images)


@torch.no_grad()
def fit_distances(
    heads: Iterable[tuple[LinearHead, Sequence[Modality]]],
    normals: Iterable[Features],
    statistics: Mapping[Modality, FeatureStatistics],
) -> None:
    """Fit to normal images what measures how far features are from normal ones.

    Args:
        heads: Heads, and the modalities of the evidence of each; one that is named twice serves both modalities.
        normals: Batches of features of all normal images.
        statistics: Of these features.
    """
    heads = list(heads)
    moments: dict[Any, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
    locations: dict[Any, list[torch.Tensor]] = defaultdict(list)
    images: dict[Any, list[torch.Tensor]] = defaultdict(list)
    for head, modalities in heads:
        for distance, modality in zip(head.location_distances, _measured(head, modalities), strict=True):
            own = statistics[modality]
            moments[distance].append((own.mean[head.measured_size], own.covariance[head.measured_size]))
    for distance, found in moments.items():
        distance.fit_covariance(*(torch.stack(values).mean(0) for values in zip(*found, strict=True)))
    for features in normals:
        for head, modalities in heads:
            evidence = [features[modality] for modality in modalities]
            for distance, part in zip(head.location_distances, _measured(head, evidence), strict=True):
                locations[distance].append(distance.distance(part.maps[head.measured_size]).flatten())
            for distance, own_vectors in zip(head.image_distances, head.located(evidence), strict=True):
                images[distance].append(own_vectors)
    for distance, distances in locations.items():
        distance.fit_scale(torch.cat(distances))
    for distance, samples in images.items():
        distance.fit(torch.cat(samples))


T = TypeVar("T")


def _measured(head: LinearHead, parts: Sequence[T]) -> Sequence[T]:
    """Those of the parts of the evidence whose locations are measured: all or none."""
    return parts if head.location_distances else ()


def _change(before: torch.Tensor, after: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """What a lesion adds to features ``(B, C, h, w)``, in the mean of its locations: ``(N, C)``, where there is one."""
    drawn = inside.flatten(1).any(1)
    within = inside[drawn].flatten(1)[:, None].float()
    difference = (after[drawn].float() - before[drawn].float()).flatten(2)
    return (difference * within).sum(2) / within.sum(2)


def _mean(solutions: Sequence[Discriminant]) -> Discriminant:
    """The mean of the log odds that each solution has on its own part of a vector."""
    return Discriminant(
        torch.cat([solution.weight for solution in solutions]) / len(solutions),
        torch.stack([solution.bias for solution in solutions]).mean(),
    )


class _Solution(NamedTuple):
    """What a student predicts its teacher by."""

    locations: list[Discriminant]
    """At each size at which locations are judged."""
    images: list[Discriminant]
    """At each size."""

    @classmethod
    def mean(cls, solutions: Sequence["_Solution"]) -> "_Solution":
        """The mean of several."""

        def middle(parts: Sequence[Discriminant]) -> Discriminant:
            return Discriminant(*(torch.stack(part).mean(0) for part in zip(*parts, strict=True)))

        return cls(*([middle(size) for size in zip(*level, strict=True)] for level in zip(*solutions, strict=True)))


class _LinearDistillation:
    """Least squares prediction of a teacher's linear log odds by a student's evidence.

    Args:
        student: Head of the student.
        teacher: Head of the teacher.
        mean: Mean of the student's evidence at each size at which locations are judged, ``(S, C)``.
    """

    def __init__(self, student: LinearHead, teacher: LinearHead, mean: torch.Tensor) -> None:
        self.student, self.teacher, self.mean = student, teacher, mean
        self.product = torch.zeros_like(mean)
        self.total, self.count = [0.0] * len(mean), [0] * len(mean)
        self.normal_images = 0
        self.statistics: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []

    def take_in_locations(self, features: ImageFeatures, given: Sequence[ImageFeatures]) -> None:
        """Take in the student's features of some images, and those that the teacher is given."""
        self.mean, self.product = self.mean.to(features.map.device), self.product.to(features.map.device)
        self.normal_images += len(features.map)
        for size, found in enumerate(self.teacher.discriminate(given)):
            odds = found.flatten(1)
            centred = features.maps[size].float().flatten(2) - self.mean[size, :, None]
            self.product[size] += torch.einsum("bcl,bl->c", centred, odds)
            self.total[size] += float(odds.sum())
            self.count[size] += odds.numel()

    def take_in_images(self, features: ImageFeatures, given: Sequence[ImageFeatures]) -> None:
        """The same for the level of images."""
        self.statistics.append(self.student.weigh([features]))
        self.targets.append(self.teacher.margins(self.teacher.weigh(given)))

    def solve(self, covariances: torch.Tensor, shrinkages: Sequence[float], ridge: float) -> _Solution:
        """The student's log odds of a location and of the image, in units of their deviation over normal ones."""
        locations = []
        for size, shrinkage in enumerate(shrinkages):
            covariance = covariances[size].to(self.product.device)
            weight = whitened(covariance, self.product[size] / self.count[size], shrinkage)
            location = Discriminant(weight, self.total[size] / self.count[size] - weight @ self.mean[size])
            locations.append(location.scaled((weight @ covariance @ weight).sqrt()))
        images = []
        for statistics, targets in zip(
            torch.cat(self.statistics).unbind(1), torch.cat(self.targets).unbind(1), strict=True
        ):
            centred = statistics - statistics.mean(0)
            weight = whitened_among_samples(centred, targets @ centred / len(targets), ridge / statistics.shape[1])
            image = Discriminant(weight, targets.mean() - weight @ statistics.mean(0))
            images.append(image.scaled((statistics[: self.normal_images] @ weight).std(correction=0)))
        return _Solution(locations, images)
