"""The distance from normal features."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from anomalib_memd.components.distance import LARGEST_BANK, NearestNormals, NormalDistance


def correlated(count, channels, seed=0):
    random = torch.Generator().manual_seed(seed)
    mixing = torch.eye(channels) + torch.rand(channels, channels, generator=random) / 2
    return 2 + torch.randn(count, channels, generator=random) @ mixing


def fit(distance, normal):
    distance.fit_covariance(normal.mean(0), normal.T.cov(correction=0))


def standardised(samples):
    return ((samples - samples.mean(0)) / samples.std(0, correction=0)).numpy()


@given(st.integers(3, 12), st.integers(1, 11), st.integers(0, 100))
def test_is_the_mahalanobis_distance_of_principal_components(channels, rank, seed):
    rank = min(rank, channels - 1)
    normal = correlated(200, channels, seed)
    distance = NormalDistance(channels, rank)
    fit(distance, normal)
    z = standardised(normal)
    variances, directions = np.linalg.eigh(np.cov(z.T, ddof=0))
    variances[:-rank] = variances[:-rank].mean()  # In rising order.
    expected = np.sqrt(((z @ directions) ** 2 / variances).sum(1))
    np.testing.assert_allclose(distance.distance(normal).numpy(), expected, rtol=5e-3, atol=1e-3)


def test_agrees_with_scikit_learn():
    normal = correlated(500, 8)
    distance = NormalDistance(8, 7)
    fit(distance, normal)
    full = EmpiricalCovariance().fit(normal.numpy()).mahalanobis(normal.numpy())
    # All but one of the components, and of one residual the mean is itself.
    np.testing.assert_allclose(distance.distance(normal).numpy(), np.sqrt(full), rtol=1e-3)
    distance = NormalDistance(8, 3)
    fit(distance, normal)
    z = standardised(normal)
    precision = PCA(3).fit(z).get_precision()
    expected = np.sqrt(np.einsum("nc,cd,nd->n", z, precision, z))
    np.testing.assert_allclose(distance.distance(normal).numpy(), expected, rtol=5e-3)


def test_maps_and_samples_have_the_same_distance():
    normal = correlated(300, 6)
    distance = NormalDistance(6, 4)
    fit(distance, normal)
    maps = normal.view(3, 10, 10, 6).movedim(-1, 1)
    expected = distance.distance(normal).view(3, 10, 10)
    torch.testing.assert_close(distance.distance(maps), expected, rtol=1e-3, atol=1e-3)


def test_scale_is_that_of_normal_samples():
    samples = correlated(400, 60)
    distance = NormalDistance(60)
    fit(distance, samples)
    distance.fit_scale(distance.distance(samples))
    measured = distance(samples)
    assert float(measured.mean()) == pytest.approx(0, abs=1e-4)
    assert float(measured.std(correction=0)) == pytest.approx(1, rel=1e-4)


@given(st.integers(1, 5), st.integers(5, 40), st.integers(0, 100))
def test_nearest_normals_are_those_of_scikit_learn(neighbours, count, seed):
    normal, samples = correlated(count, 4, seed), correlated(7, 4, seed + 1)
    distance = NearestNormals(4, neighbours)
    distance.fit(normal)
    mean, std = normal.mean(0), normal.std(0, correction=0)
    reference = NearestNeighbors(n_neighbors=neighbours).fit(((normal - mean) / std).numpy())
    expected = reference.kneighbors(((samples - mean) / std).numpy())[0].mean(1)
    np.testing.assert_allclose(distance(samples).numpy(), expected, rtol=1e-2, atol=1e-2)
    if neighbours < count:
        # scikit-learn leaves out each sample itself where no samples are given.
        expected = reference.kneighbors()[0].mean(1)
        np.testing.assert_allclose(distance(normal, among=True).numpy(), expected, rtol=1e-2, atol=1e-2)


def test_a_bank_has_an_end_and_takes_the_size_of_what_is_loaded():
    distance, loaded = NearestNormals(3), NearestNormals(3)
    distance.fit(torch.randn(2 * LARGEST_BANK + 1, 3))
    assert LARGEST_BANK / 2 < len(distance.bank) <= LARGEST_BANK
    loaded.load_state_dict(distance.state_dict())
    samples = torch.randn(5, 3)
    assert torch.equal(loaded(samples), distance(samples))


def test_what_never_varies_does_no_harm():
    normal = torch.cat([correlated(50, 5), torch.full((50, 2), 3.0)], 1)
    distance = NormalDistance(7)
    fit(distance, normal)
    assert torch.isfinite(distance(normal)).all()
    assert torch.isfinite(distance(torch.zeros(1, 7, 2, 2))).all()
