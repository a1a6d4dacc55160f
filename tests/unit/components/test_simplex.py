"""Simplex noise beside a slow computation for one place."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anomalib_memd.components.simplex import fractal_noise, noise_at, simplex_noise


def slow_noise(x, y, angles):
    """The same for one place: all corners within reach are looked at, wherever they lie."""
    unskew = (3 - math.sqrt(3)) / 6
    total = 0.0
    for i in range(len(angles)):
        for j in range(len(angles)):
            dx, dy = x - (i - (i + j) * unskew), y - (j - (i + j) * unskew)
            falloff = max(0.0, 0.5 - dx**2 - dy**2) ** 4
            total += falloff * (math.cos(angles[i, j]) * dx + math.sin(angles[i, j]) * dy)
    return 70 * total


@given(st.floats(0, 2), st.floats(0, 2), st.integers(0, 99))
def test_it_is_what_all_corners_together_make(x, y, seed):
    angles = 2 * math.pi * torch.rand(6, 6, generator=torch.Generator().manual_seed(seed))
    found = float(noise_at(torch.tensor([x]), torch.tensor([y]), angles))
    assert found == pytest.approx(slow_noise(x, y, angles), abs=1e-4)


def test_it_is_within_its_range_and_depends_on_the_seed_alone():
    noise = simplex_noise(200, 180, 9.0, torch.Generator().manual_seed(3))
    assert noise.shape == (200, 180)
    assert noise.abs().max() <= 1
    assert noise.abs().max() > 0.5
    assert noise.mean().abs() < 0.05
    assert torch.equal(noise, simplex_noise(200, 180, 9.0, torch.Generator().manual_seed(3)))
    assert not torch.equal(noise, simplex_noise(200, 180, 9.0, torch.Generator().manual_seed(4)))


def test_octaves_are_added_by_their_weights():
    random = torch.Generator().manual_seed(0)
    expected = sum(0.6**n * simplex_noise(20, 30, 8 / 2**n, random) for n in range(3))
    torch.testing.assert_close(fractal_noise(20, 30, 8.0, 3, 0.6, torch.Generator().manual_seed(0)), expected)
