"""Distances from normal vectors, beside scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from anomalib_memd.components.one_class import GaussianDensity, NearestVectors


def test_the_density_is_the_mahalanobis_distance_of_scikit_learn():
    normal, samples = torch.randn(30, 6) @ torch.randn(6, 6), torch.randn(5, 6)
    density = GaussianDensity(6)
    density.fit(normal)
    expected = np.sqrt(LedoitWolf().fit(normal.numpy()).mahalanobis(samples.numpy()))
    np.testing.assert_allclose(density(samples), expected, rtol=1e-3)


@pytest.mark.parametrize("unit", [False, True])
def test_neighbours_are_those_of_scikit_learn(unit):
    normal, samples = torch.randn(30, 6), torch.randn(5, 6)
    vectors = NearestVectors(6, neighbours=3, unit=unit)
    vectors.fit(normal)
    if unit:
        normal, samples = (x / x.norm(dim=1, keepdim=True) for x in (normal, samples))
    distances, _ = NearestNeighbors(n_neighbors=3).fit(normal.numpy()).kneighbors(samples.numpy())
    np.testing.assert_allclose(vectors(samples), np.square(distances).mean(1), rtol=1e-3, atol=1e-5)
    again = NearestVectors(6, neighbours=3, unit=unit)
    again.load_state_dict(vectors.state_dict())
    torch.testing.assert_close(again(samples), vectors(samples))
