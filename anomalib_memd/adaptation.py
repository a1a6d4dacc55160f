"""Adapt a trained MEMD to another device from a few normal images, without gradient."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torchvision.transforms.v2 import Resize

from anomalib_memd.components.checkpoints import read_checkpoint
from anomalib_memd.components.evidence import WeighedEvidence
from anomalib_memd.components.feature_cache import FeatureCache
from anomalib_memd.components.negatives import NegativePool
from anomalib_memd.components.solution import fit_distances
from anomalib_memd.components.training_features import FeatureSet
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.data.dataset import EndoscopyDataset
from anomalib_memd.data.folder import training_rows
from anomalib_memd.data.spectral import SpectralNBI
from anomalib_memd.files import written_whole
from anomalib_memd.models.memd import MEMD
from anomalib_memd.models.memd.cross_fitting import FOLDS, cross_fit, require_share, solve_all

NEGATIVES = 3
"""Least number of negatives drawn for each image; more than training needs, as images are few."""


def adapt(
    ckpt: Path, normal: Path, output: Path, nbi_root: Path | None = None, false_positive_rate: float = 0.1
) -> pd.DataFrame:
    """Adapt a checkpoint to another device from a folder of its normal images, without gradient.

    What becomes of it depends on how far the statistics of images have moved: by :math:`s` of their variances on the
    old device, in the mean of all channels.

    - Less than 1, as from one endoscope to another: what tells lesions from normal tissue stays, the discriminants of
      teacher and students, which a few images are not enough to solve for. What an image is compared with is new.
      Statistics are measured from a mean that moves to the new one by a share of :math:`s / (1 + s)`, and distances
      are those from the new images.
    - 1 or more, as from colonoscopy to a capsule: all is solved for again, with negatives drawn of the new images.

    Labelled images of the old device had decided what each piece of evidence weighs; these weights move half-way to
    equal ones.

    The threshold of the score moves to where the given share of the normal images exceeds it, that of the map to where
    one of a hundred of their pixels does, and the range of both becomes that of the normal images and of negatives
    drawn of them; for this each is judged by what was fitted to others.

    Args:
        ckpt: Checkpoint of a trained MEMD; it stays as it is.
        normal: Folder of normal white light images, of any depth; 16 are of use, more are better. If it has a
            ``split.csv``, its training images are taken.
        output: File of the adapted checkpoint.
        nbi_root: Folder parallel to it with the narrow band partners; made from white light if not given.
        false_positive_rate: Share of normal images that may be called abnormal, above 0 and below 1.

    Returns:
        Threshold of the raw score before and after, one row a detector.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If the checkpoint is of no use, or there are too few images.
        ImageReadError: If an image cannot be used; the message names it.
    """
    require_share(false_positive_rate)
    model = _load(ckpt)
    split = training_rows(normal)
    if len(split) < FOLDS:
        msg = f"{normal} holds {len(split)} images; at least {FOLDS} normal ones are needed, 16 are better."
        raise ValueError(msg)
    translator = SpectralNBI() if nbi_root is None else None
    dataset = EndoscopyDataset(split, normal, nbi_root=nbi_root, translator=translator)
    dataset.augmentations = Resize(list(model.input_size), antialias=True)
    features = model.features
    pool = NegativePool(dataset, features.synthesis, max(features.negatives, NEGATIVES), features.normalize)
    cache = FeatureCache(model.model.embedding, [pool], model.model.embedding.digest())
    try:
        cache.fill(model.device)
        for module in model.model.modules():
            if isinstance(module, WeighedEvidence):
                module.move_half_way_to_equal()
        given = FeatureSet(cache, cache.rows(0), model.device)
        settle = _Settle(model)
        shift = settle.shift(model, given)
        kept = shift < 1
        rank_zero_info(f"Statistics moved by {shift:.2f} variances: discriminants are {'kept' if kept else 'new'}.")
        thresholds = cross_fit(model, given, false_positive_rate, settle if kept else solve_all)
    finally:
        cache.close()
    _save(model, ckpt, output)
    return thresholds


class _Settle:
    """Fits a model to normal images of a device like its own, from what it was there; scales are for cross-fitting."""

    def __init__(self, model: MEMD) -> None:
        self.detectors = [pair for stage in Stage for pair in model.model.detectors(stage)]
        self.before = {own: (own.standardize.mean.clone(), own.standardize.std.clone()) for own, _ in self.detectors}

    def shift(self, model: MEMD, given: FeatureSet) -> float:
        """How far the teacher's statistics at full size have moved, in variances among images of the old device."""
        model.model.fit_statistics(Stage.TEACHER, given.statistics)
        return float(self._shifts(model.model.teacher, given)[0])

    def _shifts(self, detector: Any, given: FeatureSet) -> torch.Tensor:
        """The same at each size, ``(S,)``, less what the mean of so few images varies by; its new mean is in place."""
        mean, std = self.before[detector]
        moved = ((detector.standardize.mean - mean) / std).view(len(detector.images), -1)
        return (moved.square().mean(1) - 1 / len(given.rows)).clamp_min(0)

    @torch.no_grad()
    def __call__(self, model: MEMD, given: FeatureSet) -> None:
        for stage in Stage:
            model.model.fit_statistics(stage, given.statistics)
        for detector, (mean, std) in self.before.items():
            shifts = self._shifts(detector, given)
            share = (shifts / (1 + shifts)).repeat_interleave(len(mean) // len(shifts))
            detector.standardize.fit(torch.lerp(mean, detector.standardize.mean, share), std)
        fit_distances(self.detectors, given.normals(), given.statistics)


def _load(ckpt: Path) -> MEMD:
    model = MEMD.load_from_checkpoint(ckpt, map_location="cpu", visualizer=False).eval()
    if model.model.learns:
        msg = f"{ckpt} judges by learned encodings; there is nothing in it to fit again."
        raise ValueError(msg)
    if not model.features.negatives:
        msg = f"{ckpt} has learned from noise instead of drawn negatives, of which adapting needs some."
        raise ValueError(msg)
    return model


def _save(model: MEMD, ckpt: Path, output: Path) -> None:
    content = read_checkpoint(ckpt)
    content["state_dict"] = model.state_dict()
    # What training would need to go on does not belong to these weights.
    for name in ("optimizer_states", "lr_schedulers", "loops", "callbacks"):
        content.pop(name, None)
    with written_whole(output) as temporary:
        torch.save(content, temporary)
