"""The closed-form translation against a loop over pixels, and its properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_memd import SpectralNBI


def to_linear(value):
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def to_srgb(value):
    value = min(max(value, 0.0), 1.0)
    return value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def translate_slowly(rgb, w415, w540, h415, h540, gains, curve):
    logs = [math.log(max(to_linear(v), 1e-4)) for v in rgb]

    def band(weights, contrast):
        return math.exp(sum(w * x for w, x in zip(weights, logs, strict=True)) + contrast * (logs[1] - logs[0]))

    bands = band(w540, h540), band(w415, h415), band(w415, h415)
    return [to_srgb(min(gain * value, 1.0) ** curve) for gain, value in zip(gains, bands, strict=True)]


def test_equals_a_loop_over_pixels():
    options = ((0.1, 0.2, 0.7), (0.3, 0.6, 0.1), 0.4, 0.2, (0.9, 1.3, 1.1), 1.2)
    image = torch.rand(3, 4, 5)
    nbi = SpectralNBI(*options)(image)
    for row in range(4):
        for column in range(5):
            expected = translate_slowly(image[:, row, column].tolist(), *options)
            assert nbi[:, row, column].tolist() == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_is_a_function_of_the_single_pixel(seed):
    """Moving pixels about moves the result likewise, so partners are aligned pixel by pixel."""
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(3, 6, 6, generator=random)
    order = torch.randperm(36, generator=random)
    moved = image.flatten(1)[:, order].view(3, 6, 6)
    expected = SpectralNBI()(image).flatten(1)[:, order].view(3, 6, 6)
    torch.testing.assert_close(SpectralNBI()(moved), expected)


def test_blood_is_darker_at_415_than_at_540():
    mucosa, vessel = torch.tensor([0.8, 0.5, 0.4]), torch.tensor([0.75, 0.25, 0.2])
    light, dark = (SpectralNBI()(x[:, None, None])[:, 0, 0] for x in (mucosa, vessel))
    loss = (light - dark) / light
    assert (loss > 0).all()
    assert loss[1] > loss[0]
    assert loss[2] > loss[0]


def test_black_stays_black_and_range_is_kept():
    assert SpectralNBI()(torch.zeros(3, 2, 2)).max() < 0.02
    nbi = SpectralNBI()(torch.rand(2, 3, 16, 16))
    assert nbi.min() >= 0
    assert nbi.max() <= 1


@pytest.mark.parametrize("image", [torch.rand(1, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8), torch.rand(4, 4)])
def test_refuses_other_tensors(image):
    with pytest.raises(ValueError, match="SpectralNBI expects"):
        SpectralNBI()(image)
