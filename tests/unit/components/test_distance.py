"""The distance from normal features."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA

from anomalib_memd.components.distance import NormalDistance


def correlated(count, channels, seed=0):
    random = torch.Generator().manual_seed(seed)
    mixing = torch.eye(channels) + torch.rand(channels, channels, generator=random) / 2
    return 2 + torch.randn(count, channels, generator=random) @ mixing


def standardised(samples):
    return ((samples - samples.mean(0)) / samples.std(0, correction=0)).numpy()


@given(st.integers(3, 12), st.integers(1, 11), st.integers(0, 100))
def test_is_the_mahalanobis_distance_of_principal_components(channels, rank, seed):
    rank = min(rank, channels - 1)
    normal = correlated(200, channels, seed)
    distance = NormalDistance(channels, rank)
    distance.fit_samples(normal)
    z = standardised(normal)
    variances, directions = np.linalg.eigh(np.cov(z.T, ddof=0))
    variances[:-rank] = variances[:-rank].mean()  # In rising order.
    expected = np.sqrt(((z @ directions) ** 2 / variances).sum(1))
    np.testing.assert_allclose(distance.distance(normal).numpy(), expected, rtol=5e-3, atol=1e-3)


def test_agrees_with_scikit_learn():
    normal = correlated(500, 8)
    distance = NormalDistance(8, 7)
    distance.fit_samples(normal)
    full = EmpiricalCovariance().fit(normal.numpy()).mahalanobis(normal.numpy())
    # All but one of the components, and of one residual the mean is itself.
    np.testing.assert_allclose(distance.distance(normal).numpy(), np.sqrt(full), rtol=1e-3)
    distance = NormalDistance(8, 3)
    distance.fit_samples(normal)
    z = standardised(normal)
    precision = PCA(3).fit(z).get_precision()
    expected = np.sqrt(np.einsum("nc,cd,nd->n", z, precision, z))
    np.testing.assert_allclose(distance.distance(normal).numpy(), expected, rtol=5e-3)


def test_moments_and_samples_give_the_same_distance():
    normal = correlated(300, 6)
    by_samples, by_moments = NormalDistance(6, 4), NormalDistance(6, 4)
    by_samples.fit_samples(normal)
    by_moments.fit_covariance(normal.mean(0), normal.T.cov(correction=0))
    maps = normal.view(3, 10, 10, 6).movedim(-1, 1)
    expected = by_samples.distance(normal).view(3, 10, 10)
    torch.testing.assert_close(by_moments.distance(maps), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [16, 40, 400])
def test_scale_is_that_of_new_normal_samples(count):
    """Of few samples the distance of those it was fitted to would say little about others."""
    samples = correlated(count + 2000, 60)
    distance = NormalDistance(60)
    distance.fit_samples(samples[:count])
    unseen = distance(samples[count:])
    # By those it was fitted to, the mean of 16 would be off by dozens of deviations.
    assert abs(float(unseen.mean())) < 1
    assert 0.5 < float(unseen.std()) < 2


def test_what_never_varies_does_no_harm():
    normal = torch.cat([correlated(50, 5), torch.full((50, 2), 3.0)], 1)
    distance = NormalDistance(7)
    distance.fit_samples(normal)
    assert torch.isfinite(distance(normal)).all()
    assert torch.isfinite(distance(torch.zeros(1, 7, 2, 2))).all()
