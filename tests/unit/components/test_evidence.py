"""Pieces of evidence and what each of them weighs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from anomalib_memd.components.evidence import ENOUGH, WeighedEvidence


def labelled(useful, count=200, seed=0):
    """Evidence on normal and abnormal images, the latter higher in useful pieces by 2 deviations."""
    random = torch.Generator().manual_seed(seed)
    abnormal = torch.arange(count) % 2 == 1
    return torch.randn(count, len(useful), generator=random) + 2.0 * abnormal[:, None] * torch.tensor(useful), abnormal


def test_evidence_is_on_the_scale_of_normal_images():
    normal = 5 + 3 * torch.randn(100, 4)
    evidence = WeighedEvidence(4)
    evidence.calibrate(normal)
    expected = 0.5 * ((normal - normal.mean(0)) / normal.std(0, correction=0)).sum(1)
    torch.testing.assert_close(evidence(normal), expected)


def test_weights_are_those_of_logistic_regression_in_units_of_labelled_normal_images():
    values, abnormal = labelled([1.0, 0.3, 0.6])
    evidence = WeighedEvidence(3)
    evidence.fit_weights(values, abnormal, prior=0.0)
    scaled = StandardScaler().fit(values[~abnormal].numpy()).transform(values.numpy())
    reference = LogisticRegression(C=1e6).fit(scaled, abnormal.numpy())
    np.testing.assert_allclose(evidence.weight.numpy(), reference.coef_[0], rtol=0.02)
    np.testing.assert_allclose(evidence.bias.numpy(), reference.intercept_[0], rtol=0.02)


def test_a_strong_prior_weighs_all_the_same_and_a_weak_one_what_helps():
    values, abnormal = labelled([1.0, 0.0])
    strong, weak = WeighedEvidence(2), WeighedEvidence(2)
    strong.fit_weights(values, abnormal, prior=1e6)
    weak.fit_weights(values, abnormal, prior=0.1)
    assert float(strong.weight[0]) == pytest.approx(float(strong.weight[1]), rel=1e-2)
    assert weak.weight[0] > 5 * weak.weight[1]


@given(st.integers(0, 100), st.floats(0, 10))
def test_no_evidence_counts_against_what_it_speaks_for(seed, prior):
    values, abnormal = labelled([-1.0, 1.0], count=40, seed=seed)
    evidence = WeighedEvidence(2)
    evidence.fit_weights(values, abnormal, prior)
    assert (evidence.weight >= 0).all()


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=3), st.lists(st.floats(-10, 10), min_size=3, max_size=3))
def test_what_evidence_weighs_does_not_depend_on_its_unit_or_on_what_it_is_for_training_images(units, offsets):
    values, abnormal = labelled([1.0, 0.3, 0.6])
    changed = values * torch.tensor(units) + torch.tensor(offsets)
    plain, other = WeighedEvidence(3), WeighedEvidence(3)
    other.calibrate(10 * torch.randn(20, 3))
    plain.fit_weights(values, abnormal, prior=1.0)
    other.fit_weights(changed, abnormal, prior=1.0)
    torch.testing.assert_close(other(changed), plain(values), atol=1e-2, rtol=1e-2)


def test_few_normal_images_leave_the_scale_as_training_images_have_it():
    values, abnormal = labelled([1.0, 1.0], count=2 * ENOUGH - 2)
    evidence = WeighedEvidence(2)
    evidence.calibrate(torch.randn(50, 2))
    before = evidence.standardize.std.clone()
    evidence.fit_weights(values, abnormal, prior=1.0)
    torch.testing.assert_close(evidence.standardize.std, before)


@pytest.mark.parametrize("label", [False, True])
def test_without_both_kinds_of_images_nothing_changes(label):
    evidence = WeighedEvidence(2)
    evidence.fit_weights(torch.randn(6, 2), torch.full((6,), label), 1.0)
    assert evidence.weight.tolist() == [0.5, 0.5]
    assert float(evidence.bias) == 0


@given(st.lists(st.floats(0, 4, width=32), min_size=2, max_size=5))
def test_half_way_to_equal_weights_keep_their_mean_and_order_and_halve_their_spread(weights):
    evidence = WeighedEvidence(len(weights))
    before = torch.tensor(weights)
    evidence.weight.copy_(before)
    evidence.move_half_way_to_equal()
    torch.testing.assert_close(evidence.weight.mean(), before.mean())
    torch.testing.assert_close(evidence.weight - before.mean(), (before - before.mean()) / 2, atol=1e-6, rtol=1e-5)
