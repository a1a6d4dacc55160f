"""Adapt a trained MEMD to another device from a few normal images, without gradient."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
import torch
from torchvision.transforms.v2 import Resize

from anomalib_memd.components.checkpoints import read_checkpoint
from anomalib_memd.components.embedding import Features
from anomalib_memd.components.evidence import WeighedEvidence
from anomalib_memd.components.feature_cache import FeatureCache
from anomalib_memd.components.negatives import NegativePool
from anomalib_memd.components.training_features import FeatureSet
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.components.weighing import gather_evidence
from anomalib_memd.data.dataset import EndoscopyDataset
from anomalib_memd.data.folder import training_rows
from anomalib_memd.data.spectral import SpectralNBI
from anomalib_memd.files import written_whole
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models.memd import MEMD

NEGATIVES = 3
"""Least number of negatives drawn for each image; more than training needs, as images are few."""

FOLDS = 8
"""Number of parts of the images; each is scored by what was solved for on the others."""


def adapt(
    ckpt: Path, normal: Path, output: Path, nbi_root: Path | None = None, false_positive_rate: float = 0.1
) -> pd.DataFrame:
    """Adapt a checkpoint to another device from a folder of its normal images, without gradient.

    All that is solved for is solved for again on these images: by what features are standardised, and the
    discriminants of teacher and students, with negatives drawn of the new images. The threshold of the score moves to
    where the given share of the normal images exceeds it, that of the map to where one of a hundred of their pixels
    does, and the range of both becomes that of the normal images and of those negatives; for this each is judged by
    what was solved for on others.

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
    if not 0 < false_positive_rate < 1:
        msg = f"false_positive_rate is a share above 0 and below 1, got {false_positive_rate}."
        raise ValueError(msg)
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
        thresholds = _recalibrate(model, cache, false_positive_rate)
    finally:
        cache.close()
    _save(model, ckpt, output)
    return thresholds


def _load(ckpt: Path) -> MEMD:
    model = MEMD.load_from_checkpoint(ckpt, map_location="cpu", visualizer=False).eval()
    if model.model.learns:
        msg = f"{ckpt} judges by learned encodings; there is nothing in it to solve for again."
        raise ValueError(msg)
    if not model.features.negatives:
        msg = f"{ckpt} has learned from noise instead of drawn negatives, of which adapting needs some."
        raise ValueError(msg)
    return model


def _recalibrate(model: MEMD, cache: FeatureCache, false_positive_rate: float) -> pd.DataFrame:
    rows = torch.arange(len(cache.features))
    solutions, unseen = _solve_by_folds(model, cache, rows)
    judged: dict[Branch, list[tuple[torch.Tensor, torch.Tensor]]] = {branch: [] for branch in Branch}
    drawn: dict[Branch, list[tuple[torch.Tensor, torch.Tensor]]] = {branch: [] for branch in Branch}
    for fold in range(FOLDS):
        model.model.load_state_dict(solutions[fold], strict=False)
        _calibrate(unseen)
        left_out = FeatureSet(cache, rows[rows % FOLDS == fold], model.device)
        for branch in Branch:
            judged[branch] += [_judge(model, branch, features) for features in left_out.normals()]
            drawn[branch] += [_judge(model, branch, pair.abnormal) for pair in left_out.pairs()]
    _solve(model, FeatureSet(cache, rows, model.device))
    _calibrate(unseen)
    thresholds = []
    for branch in Branch:
        processor = model.post_processor.branch(branch)
        before = processor._image_threshold.item()  # noqa: SLF001  the public one is normalised
        shares = {"image": false_positive_rate, "pixel": 0.01}
        normal, abnormal = (zip(*found[branch], strict=True) for found in (judged, drawn))
        for level, share, own, negatives in zip(shares, shares.values(), normal, abnormal, strict=True):
            scores, all_scores = (torch.cat([part.flatten() for part in parts]) for parts in (own, own + negatives))
            getattr(processor, f"_{level}_threshold").copy_(_quantile(scores, 1 - share))
            getattr(processor, f"{level}_min").copy_(all_scores.min())
            getattr(processor, f"{level}_max").copy_(all_scores.max())
        after = processor._image_threshold.item()  # noqa: SLF001
        thresholds.append({"detector": branch.value, "before": before, "after": after})
    return pd.DataFrame(thresholds)


def _solve(model: MEMD, given: FeatureSet) -> None:
    for stage in Stage:
        model.solve(stage, given)


def _solve_by_folds(
    model: MEMD, cache: FeatureCache, rows: torch.Tensor
) -> tuple[list[dict[str, torch.Tensor]], dict[WeighedEvidence, torch.Tensor]]:
    """What is solved for without each fold, and the evidence on the normal images left out, ``(N, 3)``."""
    detectors = [detector for stage in Stage for detector in model.model.detectors(stage)]
    solutions: list[dict[str, torch.Tensor]] = []
    unseen: dict[WeighedEvidence, list[torch.Tensor]] = defaultdict(list)
    for fold in range(FOLDS):
        _solve(model, FeatureSet(cache, rows[rows % FOLDS != fold], model.device))
        solved = (item for item in model.model.state_dict().items() if not item[0].startswith("embedding."))
        solutions.append({name: value.clone() for name, value in solved})
        left_out = FeatureSet(cache, rows[rows % FOLDS == fold], model.device).normals()
        in_float32 = ({modality: part.float() for modality, part in features.items()} for features in left_out)
        for weighed, evidence in gather_evidence(detectors, in_float32).items():
            unseen[weighed].append(evidence)
    return solutions, {weighed: torch.cat(parts) for weighed, parts in unseen.items()}


def _calibrate(normal: dict[WeighedEvidence, torch.Tensor]) -> None:
    """Bring evidence to the scale of normal images that nothing was fitted to."""
    for weighed, evidence in normal.items():
        weighed.calibrate(evidence)


@torch.no_grad()
def _judge(model: MEMD, branch: Branch, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw scores ``(B,)`` and maps ``(B, h, w)`` on the grid of the features."""
    features = {modality: part.float() for modality, part in features.items()}
    prediction = model.model.judge(branch, features, features[Modality.WLI].shape[-2:])
    return prediction.pred_score, prediction.anomaly_map


def _quantile(values: torch.Tensor, level: float) -> torch.Tensor:
    return values.sort().values[round(level * (len(values) - 1))]  # Tensor.quantile takes no long vectors.


def _save(model: MEMD, ckpt: Path, output: Path) -> None:
    content = read_checkpoint(ckpt)
    content["state_dict"] = model.state_dict()
    # What training would need to go on does not belong to these weights.
    for name in ("optimizer_states", "lr_schedulers", "loops", "callbacks"):
        content.pop(name, None)
    with written_whole(output) as temporary:
        torch.save(content, temporary)
