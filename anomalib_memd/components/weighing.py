"""Gather the evidence of heads, bring it to the scale of normal images, and let labelled images weigh it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from anomalib.data import AnomalibDataModule
from anomalib.pre_processing import PreProcessor
from torch import nn
from torch.utils.data import DataLoader

from anomalib_memd.modality import Modality

from .backbones import fast_precision
from .embedding import FeatureEmbedding, Features, in_float32
from .evidence import WeighedEvidence
from .solution import LinearHead


@torch.no_grad()
def gather_evidence(
    heads: Iterable[tuple[LinearHead, Sequence[Modality]]], batches: Iterable[Features], among: bool = False
) -> dict[WeighedEvidence, torch.Tensor]:
    """What speaks for abnormal images, for each head that weighs it.

    Args:
        heads: See :func:`.fit_distances`.
        batches: Batches of features.
        among: Whether these are the images that the heads were fitted to.

    Returns:
        Shape ``(N, pieces)`` by what weighs it. A head that serves both modalities has all images in white light,
        and then all in narrow band light.
    """
    heads = list(heads)
    found: list[list[torch.Tensor]] = [[] for _ in heads]
    for features in batches:
        for (head, modalities), parts in zip(heads, found, strict=True):
            parts.append(head.image_evidence([features[modality] for modality in modalities], among))
    gathered: dict[WeighedEvidence, list[torch.Tensor]] = defaultdict(list)
    for (head, _), parts in zip(heads, found, strict=True):
        gathered[head.evidence] += parts
    return {weighed: torch.cat(parts) for weighed, parts in gathered.items()}


def calibrate_evidence(heads: Iterable[tuple[LinearHead, Sequence[Modality]]], normals: Iterable[Features]) -> None:
    """Bring all evidence of images to the scale of normal ones, once everything else is solved for and fitted.

    Args:
        heads: See :func:`.fit_distances`.
        normals: Batches of features of the normal images that the heads were fitted to.
    """
    for weighed, evidence in gather_evidence(heads, normals, among=True).items():
        weighed.calibrate(evidence)


def weigh_evidence(
    heads: Iterable[tuple[LinearHead, Sequence[Modality]]],
    labelled: Iterable[tuple[Features, torch.Tensor]],
    prior: float,
) -> None:
    """Let labelled images decide what the evidence on images weighs, see :meth:`.WeighedEvidence.fit_weights`.

    Args:
        heads: See :func:`.fit_distances`.
        labelled: Batches of features of both modalities, and which are abnormal, ``(B,)``.
        prior: How strongly weights are drawn toward equal ones.
    """
    labels: list[torch.Tensor] = []

    def batches() -> Iterator[Features]:
        for features, abnormal in labelled:
            labels.append(abnormal)
            yield features

    for weighed, evidence in gather_evidence(heads, batches()).items():
        abnormal = torch.cat(labels)
        weighed.fit_weights(evidence, abnormal.repeat(len(evidence) // len(abnormal)), prior)


@torch.no_grad()
def labelled_features(
    embedding: FeatureEmbedding, datamodule: AnomalibDataModule, pre_processor: PreProcessor | None
) -> Iterator[tuple[Features, torch.Tensor]]:
    """Features of the validation images of both modalities, batch by batch.

    Args:
        embedding: Takes normalised images to features, on its own device.
        datamodule: Datamodule of pairs.
        pre_processor: Normalises images, if there is one.

    Yields:
        Features of each modality, and which images are abnormal, ``(B,)``.
    """
    device = next(embedding.parameters()).device
    transform = (pre_processor.transform if pre_processor is not None else None) or nn.Identity()
    images = datamodule.val_data
    # The datamodule's own loader gives each of several processes a share; all of them need the same answer.
    loader = DataLoader(
        images,
        batch_size=datamodule.eval_batch_size,
        num_workers=datamodule.num_workers,
        collate_fn=datamodule.external_collate_fn or images.collate_fn,
    )
    for batch in loader:
        pair = {Modality.WLI: batch.image, Modality.NBI: batch.nbi_image}
        with fast_precision(device):
            features = {modality: embedding(transform(image.to(device))) for modality, image in pair.items()}
        yield in_float32(features), batch.gt_label.bool().to(device)
