"""Distances between maps, beside scikit-image and slow loops."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from anomalib_memd.components.similarity import (
    SummedMap,
    cosine_distance,
    flattened_cosine_distance,
    image_score,
    structural_distance,
)


def slow_cosine(a, b):
    return 1 - float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_cosines_are_those_of_each_location_and_of_whole_maps():
    first, second = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    local = cosine_distance(first, second)
    assert local.shape == (2, 1, 3, 4)
    for image in range(2):
        for row in range(3):
            for column in range(4):
                expected = slow_cosine(first[image, :, row, column].numpy(), second[image, :, row, column].numpy())
                assert float(local[image, 0, row, column]) == pytest.approx(expected, abs=1e-5)
        whole = slow_cosine(first[image].flatten().numpy(), second[image].flatten().numpy())
        assert float(flattened_cosine_distance(first, second)[image]) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("distance", [cosine_distance, flattened_cosine_distance])
def test_cosines_of_maps_in_16_bits_have_32(distance):
    first = torch.randn(2, 64, 3, 4).bfloat16()
    second = (first + 0.1 * torch.randn(2, 64, 3, 4)).bfloat16()
    found = distance(first, second)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, distance(first.double(), second.double()).float(), rtol=1e-3, atol=1e-6)


def test_structural_similarity_is_that_of_scikit_image():
    first, second = torch.rand(1, 2, 40, 44), torch.rand(1, 2, 40, 44)
    second = (first + 0.3 * second) / 1.3
    found = structural_distance(first, second, window=11)
    for channel in range(2):
        _, expected = structural_similarity(
            first[0, channel].numpy(), second[0, channel].numpy(), data_range=1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        inner = slice(6, -6)  # Rims are padded in other ways.
        np.testing.assert_allclose(found[0, channel, inner, inner], (1 - expected[inner, inner]) / 2, atol=1e-4)


def test_maps_are_enlarged_and_summed():
    constant = [torch.full((2, 1, 4, 4), 0.25), torch.full((2, 1, 2, 2), 0.5)]
    for sigma in (0.0, 2.0):
        summed = SummedMap(sigma)(constant, (24, 20))
        torch.testing.assert_close(summed, torch.full((2, 1, 24, 20), 0.75))
    spot = torch.zeros(1, 1, 24, 24)
    spot[..., 12, 12] = 1
    assert float(SummedMap(2.0)([spot], (24, 24))[0, 0, 12, 12]) == pytest.approx(1 / (2 * np.pi * 4), rel=0.02)


def test_an_image_has_the_most_abnormal_pixel_or_the_mean():
    anomaly_map = torch.rand(3, 1, 5, 6)
    assert image_score(anomaly_map, "max").tolist() == [float(m.max()) for m in anomaly_map]
    torch.testing.assert_close(image_score(anomaly_map, "mean"), torch.stack([m.mean() for m in anomaly_map]))
    with pytest.raises(ValueError, match="the max or the mean of its map, not the 'median'"):
        image_score(anomaly_map, "median")
