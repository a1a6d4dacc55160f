"""Overlap of masks, against counts."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_memd.evaluation import SegmentationEvaluator, overlap_metrics


def measured(batches):
    found = {}
    for metric in overlap_metrics():
        for pred, target in batches:
            metric.update(SimpleNamespace(pred_mask=pred, gt_mask=target))
        found[metric.name] = float(metric.compute())
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_they_are_what_counting_gives(seed, share):
    random = torch.Generator().manual_seed(seed)
    preds, targets = (torch.rand(6, 5, 7, generator=random) < share for _ in range(2))
    targets[1] = False  # One image has no lesion.
    targets[0, 0, 0] = preds[0, 0, 0] = True
    found = measured([(preds[:4], targets[:4]), (preds[4:], targets[4:])])
    dice, iou = [], []
    for pred, target in zip(preds, targets, strict=True):
        if target.any():
            both, either = int((pred & target).sum()), int((pred | target).sum())
            dice.append(2 * both / (int(pred.sum()) + int(target.sum())))
            iou.append(both / either)
    both = int((preds & targets).sum())
    precision, recall = both / int(preds.sum()), both / int(targets.sum())
    assert found["pixel_Dice"] == pytest.approx(sum(dice) / len(dice), abs=1e-5)
    assert found["pixel_IoU"] == pytest.approx(sum(iou) / len(iou), abs=1e-5)
    assert found["pixel_Precision"] == pytest.approx(precision, abs=1e-5)
    assert found["pixel_Recall"] == pytest.approx(recall, abs=1e-5)
    assert found["pixel_F1Score"] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)


def test_the_evaluator_has_them_beside_all_others():
    names = [metric.name for metric in SegmentationEvaluator().test_metrics]
    assert names[-5:] == ["pixel_Dice", "pixel_IoU", "pixel_Precision", "pixel_Recall", "pixel_F1Score"]
    assert "image_AUROC" in names
