"""Areas under curves over pixels, against anomalib's and scikit-learn's."""

from types import SimpleNamespace

import anomalib.metrics
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.evaluation import pixels

FIELDS = ["anomaly_map", "gt_mask"]


def smooth_maps(count=12, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps, masks = (
        F.interpolate(torch.randn(count, 1, cells, cells, generator=generator), (side, side), mode="bicubic")[:, 0]
        for cells in (8, 4)
    )
    masks = masks > 0.8
    masks[::3] = False
    return torch.sigmoid(maps + 0.7 * masks), masks


def measure(kind, maps, masks, batch=5, **options):
    metric = kind(fields=FIELDS, **options)
    for start in range(0, len(maps), batch):
        part = slice(start, start + batch)
        metric.update(SimpleNamespace(anomaly_map=maps[part], gt_mask=masks[part]))
    return float(metric.compute())


def cut(scores):
    """Scores with the bits that are dropped set to 0."""
    bits = np.asarray(scores, dtype=np.float32).view(np.int32)
    return (bits & -(2**pixels.DROPPED_BITS)).view(np.float32)


@pytest.mark.parametrize("name", ["AUROC", "AUPRO"])
@pytest.mark.parametrize("change", [lambda m: m, lambda m: 0.4 + m / 10, lambda m: m**4])
def test_areas_are_those_of_anomalib(name, change):
    maps, masks = smooth_maps()
    maps = change(maps)
    exact = measure(getattr(anomalib.metrics, name), maps, masks)
    assert 0.1 < exact < 0.9
    assert measure(getattr(pixels, name), maps, masks) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_the_limit_is_that_of_anomalib(limit):
    maps, masks = smooth_maps(seed=1)
    exact = measure(anomalib.metrics.AUPRO, maps, masks, fpr_limit=limit)
    assert measure(pixels.AUPRO, maps, masks, fpr_limit=limit) == pytest.approx(exact, abs=1e-4)


def test_scores_of_any_range_count():
    """Anomalib's squash what is beyond [0, 1], and tie what becomes 1."""
    maps, masks = smooth_maps()
    truth = roc_auc_score(masks.flatten(), maps.flatten())
    for change in (lambda m: 300 * m + 20, lambda m: 50 * (m - 0.5), lambda m: -1 / m):
        assert measure(pixels.AUROC, change(maps), masks) == pytest.approx(truth, abs=1e-4)


def test_zeros_of_both_signs_are_equal():
    maps, masks = torch.tensor([[[0.0, -0.0, -0.0, 0.0]]]), torch.tensor([[[True, False, True, False]]])
    assert measure(pixels.AUROC, maps, masks) == 0.5


@given(
    st.lists(
        st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), st.booleans()),
        min_size=4,
        max_size=40,
    ).filter(lambda pairs: len({label for _, label in pairs}) == 2)
)
@settings(max_examples=60, deadline=None)
def test_the_area_is_that_of_scores_that_are_cut(pairs):
    scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
    maps, masks = torch.tensor(scores, dtype=torch.float32), torch.tensor(labels)
    found = measure(pixels.AUROC, maps.reshape(1, 1, -1), masks.reshape(1, 1, -1))
    expected = roc_auc_score(labels, np.copysign(cut(np.abs(scores)), scores).astype(np.float64))
    assert found == pytest.approx(expected, abs=1e-6)


def test_overlap_by_the_slow_way():
    """Each region counts the same, however large it is."""
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4, :4] = True  # Found as a whole.
    masks[1, 7, 7] = True  # Not found.
    maps = masks.float() * 0.5
    maps[1, 7, 7] = 0
    maps[1, 0] = 0.25  # 8 of 111 normal pixels.
    # All thresholds between 0.5 and 0.25 find half of the regions; below it comes all that is left, at once.
    normal = (~masks).sum().item()
    at = 8 / normal
    end = 0.5 + 0.5 * (0.3 - at) / (1 - at)
    area = 0.5 * at + (0.3 - at) * (0.5 + end) / 2
    assert measure(pixels.AUPRO, maps, masks) == pytest.approx(area / 0.3, abs=1e-6)


def test_a_region_that_fills_its_image_counts():
    masks = torch.tensor([True, False])[:, None, None].expand(2, 4, 4)
    assert measure(pixels.AUPRO, masks.float(), masks) == 1


@pytest.mark.parametrize("kind", [pixels.AUROC, pixels.AUPRO])
def test_batches_do_not_matter(kind):
    maps, masks = smooth_maps()
    assert measure(kind, maps, masks, batch=1) == pytest.approx(measure(kind, maps, masks, batch=12), abs=1e-7)


@pytest.mark.parametrize("kind", [pixels.AUROC, pixels.AUPRO])
def test_processes_add_up(kind):
    maps, masks = smooth_maps()
    parts = [kind(fields=FIELDS) for _ in range(2)]
    for number, metric in enumerate(parts):
        metric.update(SimpleNamespace(anomaly_map=maps[number::2], gt_mask=masks[number::2]))
    for state in ("normal", "abnormal"):  # Torchmetrics joins the lists of all processes.
        getattr(parts[0], state).extend(getattr(parts[1], state))
    assert float(parts[0].compute()) == pytest.approx(measure(kind, maps, masks), abs=1e-7)


def test_memory_does_not_grow_with_images():
    metric = pixels.AUPRO(fields=FIELDS)
    assert metric.normal == []
    for seed in range(3):
        maps, masks = smooth_maps(seed=seed)
        metric.update(SimpleNamespace(anomaly_map=maps, gt_mask=masks))
        assert [tuple(counts.shape) for counts in metric.normal + metric.abnormal] == [(pixels.BINS,)] * 2


def test_without_abnormal_pixels_there_is_no_area():
    maps, masks = smooth_maps()
    for kind in (pixels.AUROC, pixels.AUPRO):
        assert measure(kind, maps, torch.zeros_like(masks)) == 0
        assert measure(kind, maps, torch.ones_like(masks)) == 0
