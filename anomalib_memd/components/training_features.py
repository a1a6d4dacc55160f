"""The features that MEMD trains on: kept from the start, or computed step by step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torchvision.transforms.v2 import Normalize

from anomalib_memd.data import DataModality, PairedImageBatch
from anomalib_memd.modality import Modality

from .backbones import fast_precision
from .embedding import FeatureEmbedding, ImageFeatures
from .feature_cache import FeatureCache, shrink
from .negatives import FeatureNoise, ImageSynthesis, NegativePool, pair_of, synthesise
from .statistics import FeatureStatistics, feature_statistics


class Sample(NamedTuple):
    """Training input of one step: features of normal images, and of one negative of each."""

    normal: dict[Modality, ImageFeatures]
    """Of normal images."""
    abnormal: dict[Modality, ImageFeatures]
    """Of negatives."""
    masks: dict[Modality, torch.Tensor]
    """Abnormal fraction of each location of the negatives in [0, 1], each ``(B, H, W)``."""
    registered: bool
    """Whether the two modalities show the same tissue."""

    def noisy(self, noise: FeatureNoise, scales: Mapping[Modality, torch.Tensor]) -> "Sample":
        """The same normal images, their negatives made by noise on their features alone.

        Args:
            noise: Draws the noise.
            scales: Deviation of each channel, ``(C,)``, the unit of the noise.
        """
        unchanged = {modality: torch.zeros_like(mask) for modality, mask in self.masks.items()}
        return Sample(self.normal, self.normal, unchanged, self.registered).with_noise(noise, scales)

    def with_noise(self, noise: FeatureNoise, scales: Mapping[Modality, torch.Tensor]) -> "Sample":
        """Noise on the features of the negatives, in the same places of registered images.

        Args:
            noise: Draws the noise; a deviation of 0 adds none.
            scales: Deviation of each channel, ``(C,)``, the unit of the noise.
        """
        if noise.std == 0:
            return self
        abnormal, masks = {}, {}
        shared = noise.blobs(self.masks[Modality.WLI].shape, self.masks[Modality.WLI].device)
        for modality, mask in self.masks.items():
            blobs = shared if self.registered else noise.blobs(mask.shape, mask.device)
            noisy = noise(self.abnormal[modality].map, blobs, scales[modality])
            abnormal[modality] = self.abnormal[modality]._replace(map=noisy)
            masks[modality] = torch.maximum(mask, blobs.to(mask.dtype))
        return Sample(self.normal, abnormal, masks, self.registered)

    def merged(
        self, noise: FeatureNoise, scales: Mapping[Modality, torch.Tensor]
    ) -> tuple[dict[Modality, torch.Tensor], dict[Modality, torch.Tensor]]:
        """Put normal images and negatives into one batch, and noise on the features of the negatives.

        Args:
            noise: See :meth:`with_noise`.
            scales: Likewise.

        Returns:
            Maps ``(2 B, C, H, W)`` and masks ``(2 B, H, W)`` of each modality, normal images first.
        """
        _, abnormal, masks, _ = self.with_noise(noise, scales)
        features = {m: torch.cat([self.normal[m].map, abnormal[m].map]) for m in Modality}
        return features, {m: torch.cat([torch.zeros_like(masks[m]), masks[m]]) for m in Modality}


@dataclass(frozen=True)
class FeatureSet:
    """Kept features of some pairs, to go through as often as needed.

    Args:
        cache: What keeps them.
        rows: Their numbers in it.
        device: Where they go.
        registered: Whether the two modalities of a pair show the same tissue.
    """

    cache: FeatureCache
    rows: torch.Tensor
    device: torch.device
    registered: bool = True

    @cached_property
    def statistics(self) -> dict[Modality, FeatureStatistics]:
        """Statistics of the normal images of each modality."""
        return {modality: feature_statistics(x[modality] for x in self.normals()) for modality in Modality}

    def normals(self) -> Iterator[dict[Modality, ImageFeatures]]:
        """Features of the normal images, batch by batch."""
        return self.cache.normals(self.rows, self.device)

    def pairs(self) -> Iterator[Sample]:
        """Normal images with a negative, batch by batch, once with each of their negatives."""
        for arrays in self.cache.sweep(self.rows, self.device):
            yield Sample(*arrays, registered=self.registered)


class TrainingFeatures:
    """Source of training features.

    The features of the frozen backbone are computed once and kept in a :class:`~.feature_cache.FeatureCache`,
    unless images are augmented or the backbone learns; then negatives are drawn and embedded in each step.

    Args:
        kind: What is drawn into negatives.
        negatives: Number of negatives in the pool of each image.
        mean: Mean by which images are normalised.
        std: Deviation by which images are normalised.
        keep: Whether features may be kept.
        directory: Where they stay for later runs.

    Raises:
        ValueError: If there are no negatives.
    """

    def __init__(
        self,
        kind: str,
        negatives: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        keep: bool = True,
        directory: str | Path | None = None,
    ) -> None:
        if negatives < 1:
            msg = f"MEMD learns from synthetic negatives and needs at least 1 for each image, got {negatives}."
            raise ValueError(msg)
        self.synthesis = ImageSynthesis(kind)
        # Where noise on the features is all, there is nothing to draw into images and nothing to keep of it.
        self.negatives = negatives if self.synthesis.changes_images else 0
        self.normalize = Normalize(list(mean), list(std))
        self.keep = keep
        self.directory = Path(directory) if directory is not None else None
        self._cache: FeatureCache | None = None
        self._keep_cache = False
        self._sets: list[FeatureSet] = []
        self._translation: nn.Module | None = None

    def begin(self, embedding: FeatureEmbedding, trainer: Trainer, unpaired: bool) -> FeatureSet:
        """Compute features for a stage, and let the datamodule give what it trains on.

        Args:
            embedding: Takes normalised images to features.
            trainer: Trainer with a datamodule of pairs.
            unpaired: Whether the stage trains on images that are no pairs, where there are some.

        Raises:
            TypeError: If the datamodule has no pairs.
        """
        datamodule = getattr(trainer, "datamodule", None)
        if getattr(datamodule, "modality", None) != DataModality.PAIRED:
            msg = (
                f"MEMD trains on pairs: use a datamodule such as anomalib_memd.Kvasir with modality=paired, "
                f"not {datamodule}."
            )
            raise TypeError(msg)
        self.prepare(embedding, trainer)
        datamodule.use_unpaired = unpaired and len(datamodule.train_datasets()) > 1
        return self.kept(datamodule.use_unpaired)

    def prepare(self, embedding: FeatureEmbedding, trainer: Trainer) -> None:
        """Compute features; once a run, or once a stage where they cannot be kept.

        Args:
            embedding: Takes normalised images to features.
            trainer: Trainer with a datamodule of pairs.
        """
        if self._cache is not None:
            return
        datamodule = trainer.datamodule
        keep = self.keep and datamodule.train_augmentations is None
        if self.keep and not keep:
            rank_zero_info("Training images are augmented, so their features are computed anew in each step.")
        # Where features are not kept, one negative of each image is enough for what is computed at the start.
        negatives = self.negatives if keep else min(self.negatives, 1)
        pools = [
            NegativePool(dataset, self.synthesis, negatives, self.normalize) for dataset in datamodule.train_datasets()
        ]
        device = next(embedding.parameters()).device
        cache = FeatureCache(embedding, pools, embedding.digest(), self.directory if keep else None)
        cache.fill(
            device,
            datamodule.num_workers,
            trainer.global_rank,
            trainer.world_size,
            trainer.strategy.barrier,
            trainer.strategy.broadcast,
        )
        self._sets = [FeatureSet(cache, cache.rows(n), device, registered=n == 0) for n in range(len(pools))]
        self._translation = pools[0].dataset.translation
        self._cache, self._keep_cache = cache, keep
        for dataset in datamodule.train_datasets():
            dataset.paths_only = keep

    def release(self, trainer: Trainer) -> None:
        """Let go of features that were needed for the start of a stage alone."""
        if self._cache is not None and not self._keep_cache:
            trainer.strategy.barrier()
            self._cache.close()
            self._cache = None

    def kept(self, unpaired: bool) -> FeatureSet:
        """The features of all training pairs, or of the unpaired sets."""
        return self._sets[-1 if unpaired else 0]

    @property
    def pairs(self) -> FeatureSet | None:
        """The features of all training pairs, while they are kept."""
        return None if self._cache is None else self._sets[0]

    def sample(self, batch: PairedImageBatch, embedding: FeatureEmbedding) -> Sample:
        """Features of a batch and of one negative of each item.

        Args:
            batch: Normalised training pairs.
            embedding: Takes normalised images to features.

        Raises:
            TypeError: If the batch is no batch of pairs.
        """
        if not isinstance(batch, PairedImageBatch):
            msg = (
                f"MEMD trains on pairs, got {type(batch).__name__}; use a datamodule such as "
                f"anomalib_memd.Kvasir with modality=paired."
            )
            raise TypeError(msg)
        registered = bool(batch.registered is None or batch.registered.all())
        if self._cache is not None:
            return Sample(*self._cache.draw(batch.image_path, batch.image.device), registered=registered)
        return self._compute(batch, embedding, registered)

    def _compute(self, batch: PairedImageBatch, embedding: FeatureEmbedding, registered: bool) -> Sample:
        mean, std = (
            torch.tensor(v, device=batch.image.device)[:, None, None] for v in (self.normalize.mean, self.normalize.std)
        )
        pairs = [{m: (x * std + mean).clamp(0, 1).cpu() for m, x in pair_of(item).items()} for item in batch]
        seeds = torch.randint(2**31, (len(pairs),)).tolist()
        drawn = [
            synthesise(self.synthesis, pair, pairs[(i + 1) % len(pairs)], registered, seed, self._translation)
            for i, (pair, seed) in enumerate(zip(pairs, seeds, strict=True))
        ]
        normal, abnormal, masks = {}, {}, {}
        with fast_precision(batch.image.device):
            for modality, image in {Modality.WLI: batch.image, Modality.NBI: batch.nbi_image}.items():
                normal[modality] = embedding(image)
                negatives = self.normalize(torch.stack([images[modality] for images, _ in drawn]))
                abnormal[modality] = embedding(negatives.to(image.device))
                changed = torch.stack([mask[modality] for _, mask in drawn]).to(image.device)
                masks[modality] = shrink(changed, normal[modality].map.shape[-2:])
        return Sample(normal, abnormal, masks, registered)

    def close(self) -> None:
        """Let go of everything, at the end of a run."""
        if self._cache is not None:
            for pool in self._cache.pools:
                pool.dataset.paths_only = False
            self._cache.close()
        self._cache = None
        self._sets = []
