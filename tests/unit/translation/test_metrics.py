"""Distances against torchmetrics and closed forms."""

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from anomalib_memd.translation import metrics


@pytest.fixture
def features():
    random = np.random.default_rng(0)
    return random.normal(size=(40, 12)), random.normal(0.3, 1.5, size=(25, 12))


def test_frechet_distance_is_that_of_torchmetrics(features):
    x, y = (torch.from_numpy(z) for z in features)
    expected = _compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert metrics.frechet_distance(*features) == pytest.approx(expected.item(), rel=1e-4)
    assert metrics.frechet_distance(features[0], features[0]) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_fewer_images_than_features():
    x, y = np.random.default_rng(0).normal(size=(2, 6, 30))
    mean, scale = np.ones(30), 1.0
    assert metrics.frechet_distance(x, x * scale + mean) == pytest.approx(30)
    assert metrics.frechet_distance(x, y) > 0


def test_kernel_distance_is_that_of_torchmetrics(features):
    x, y = (torch.from_numpy(z) for z in features)
    # torchmetrics wants as many of both.
    assert metrics.kernel_distance(x[:25].numpy(), y.numpy()) == pytest.approx(poly_mmd(x[:25], y).item())


def test_copies_of_an_image_are_not_compared_with_each_other(features):
    x, y = features
    assert metrics.kernel_distance(np.repeat(x, 2, axis=0), y) == pytest.approx(metrics.kernel_distance(x, y))


def test_an_interval_holds_the_distance(features):
    low, high = metrics.bootstrap(metrics.kernel_distance, *features)
    assert low < metrics.kernel_distance(*features) < high


def test_contrast_is_the_difference_to_a_ring():
    image = np.full((40, 40, 3), [0.6, 0.4, 0.3])
    mask = np.zeros((40, 40), dtype=bool)
    mask[15:25, 15:25] = True
    assert metrics.lesion_contrast(image, mask) == pytest.approx(0)
    image[mask] = [0.7, 0.3, 0.3]
    lab = [metrics.rgb2lab(image)[place] for place in ((20, 20), (12, 12))]
    assert metrics.lesion_contrast(image, mask) == pytest.approx(float(deltaE_ciede2000(*lab)))
    assert np.isnan(metrics.lesion_contrast(image, ~np.zeros_like(mask)))


def test_of_equal_images_nothing_differs():
    image = np.random.default_rng(0).random((24, 24, 3))
    assert metrics.ssim(image, image) == pytest.approx(1)
    assert metrics.structure(image, image) == pytest.approx(1, abs=1e-3)
    assert metrics.colour_difference(image, image) == pytest.approx(0)
    assert metrics.psnr(image, image + 0.1) == pytest.approx(20)
