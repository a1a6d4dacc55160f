"""Thresholds by normal images alone: each is judged by what was solved for on others."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from anomalib_memd.components.embedding import Features, in_float32
from anomalib_memd.components.evidence import WeighedEvidence
from anomalib_memd.components.training_features import FeatureSet
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.components.weighing import gather_evidence
from anomalib_memd.modality import Branch, Modality

FOLDS = 8
"""Number of parts of few images; each is scored by what was solved for on the others."""
FEW, FOLDS_OF_MANY = 200, 3
"""From how many images on fewer parts do, and how many: each takes as long as a training."""


def require_share(false_positive_rate: float) -> None:
    """Check a share of normal images that may be called abnormal.

    Raises:
        ValueError: If it is not above 0 and below 1.
    """
    if not 0 < false_positive_rate < 1:
        msg = f"false_positive_rate is a share above 0 and below 1, got {false_positive_rate}."
        raise ValueError(msg)


Solve = Callable[[Any, FeatureSet], None]
"""Fits a :class:`.MEMD` to some normal images."""


def solve_all(model: Any, given: FeatureSet) -> None:
    """Solve again for all of a model."""
    for stage in Stage:
        model.solve(stage, given)


def cross_fit(model: Any, given: FeatureSet, false_positive_rate: float, solve: Solve = solve_all) -> pd.DataFrame:
    """Fit a model again, and set its thresholds by normal images alone.

    The threshold of the score moves to where the given share of the normal images exceeds it, that of the map to where
    one of a hundred of their locations does. The range of both becomes that of the normal images and of the negatives
    drawn of them. For this each image is judged by what was solved for on others.

    Args:
        model: A :class:`.MEMD`.
        given: Features of its training images, at least ``FOLDS`` of them.
        false_positive_rate: Share of normal images that may be called abnormal, above 0 and below 1.
        solve: Fits the model to all of these images, or to those of all parts but one.

    Returns:
        Threshold of the raw score before and after, one row a detector.
    """
    cache, rows = given.cache, given.rows
    folds = _folds(len(rows), FOLDS if len(rows) < FEW else FOLDS_OF_MANY)
    solutions, unseen = _solve_by_folds(model, given, folds, solve)
    judged: dict[Branch, list[tuple[torch.Tensor, torch.Tensor]]] = {branch: [] for branch in Branch}
    drawn: dict[Branch, list[tuple[torch.Tensor, torch.Tensor]]] = {branch: [] for branch in Branch}
    for fold in range(len(solutions)):
        model.model.load_state_dict(solutions[fold], strict=False)
        _calibrate(unseen)
        left_out = FeatureSet(cache, rows[folds == fold], model.device)
        for branch in Branch:
            judged[branch] += [_judge(model, branch, features) for features in left_out.normals()]
            drawn[branch] += [_judge(model, branch, pair.abnormal) for pair in left_out.pairs()]
    solve(model, given)
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


def cross_fit_without_labels(model: Any) -> None:
    """Set thresholds by normal images, where no validation image is abnormal.

    It waits for the students, and needs the kept features of training images. See :func:`cross_fit`.

    Args:
        model: A :class:`.MEMD` in training that is solved for.
    """
    given = model.features.pairs
    if (
        model.stage is not Stage.STUDENTS
        or given is None
        or (model.trainer.datamodule.val_data.samples.label_index == 1).any()
    ):
        return
    if len(given.rows) < FOLDS:
        rank_zero_warn(f"{len(given.rows)} normal images are too few for thresholds; {FOLDS} are needed.")
        return
    rate = model.options.head.false_positive_rate
    cross_fit(model, given, rate)
    rank_zero_info(f"Thresholds were set by normal images alone: {rate:.0%} of them are called abnormal.")


def _folds(count: int, parts: int) -> torch.Tensor:
    """Number of the part of each image. Parts are in one piece, as frames of a video that adjoin look alike."""
    return torch.arange(count) * parts // count


def _solve_by_folds(
    model: Any, given: FeatureSet, folds: torch.Tensor, solve: Solve
) -> tuple[list[dict[str, torch.Tensor]], dict[WeighedEvidence, torch.Tensor]]:
    """What is solved for without each fold, and the evidence on the normal images left out, ``(N, pieces)``."""
    detectors = [detector for stage in Stage for detector in model.model.detectors(stage)]
    solutions: list[dict[str, torch.Tensor]] = []
    unseen: dict[WeighedEvidence, list[torch.Tensor]] = defaultdict(list)
    for fold in folds.unique():
        solve(model, FeatureSet(given.cache, given.rows[folds != fold], model.device))
        solved = (item for item in model.model.state_dict().items() if not item[0].startswith("embedding."))
        solutions.append({name: value.clone() for name, value in solved})
        left_out = FeatureSet(given.cache, given.rows[folds == fold], model.device).normals()
        for weighed, evidence in gather_evidence(detectors, map(in_float32, left_out)).items():
            unseen[weighed].append(evidence)
    return solutions, {weighed: torch.cat(parts) for weighed, parts in unseen.items()}


def _calibrate(normal: dict[WeighedEvidence, torch.Tensor]) -> None:
    """Bring evidence to the scale of normal images that nothing was fitted to."""
    for weighed, evidence in normal.items():
        weighed.calibrate(evidence)


@torch.no_grad()
def _judge(model: Any, branch: Branch, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw scores ``(B,)`` and maps ``(B, h, w)`` on the grid of the features."""
    prediction = model.model.judge(branch, in_float32(features), features[Modality.WLI].map.shape[-2:])
    return prediction.pred_score, prediction.anomaly_map


def _quantile(values: torch.Tensor, level: float) -> torch.Tensor:
    return values.sort().values[round(level * (len(values) - 1))]  # Tensor.quantile takes no long vectors.
