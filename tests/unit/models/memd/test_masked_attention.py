"""Masked attention reconstruction against loops over pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_memd.models.memd.masked_attention import MaskedAttentionReconstruction, SimAM


def corner_kernels(module, x):
    """x_mask by its definition: four k x k kernels at the corners of an L x L field, one pixel at a time."""
    k, d = module.kernel_size, module.distance
    length = 2 * k + 2 * d + 1
    half = length // 2
    padded = torch.zeros(*x.shape[:2], x.shape[2] + 2 * half, x.shape[3] + 2 * half, dtype=x.dtype)
    padded[:, :, half : half + x.shape[2], half : half + x.shape[3]] = x
    corners = [(0, 0), (0, length - k), (length - k, 0), (length - k, length - k)]
    out = torch.zeros_like(x)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            field = padded[:, :, row : row + length, column : column + length]
            for kernel, (top, left) in zip(module.weight, corners, strict=True):
                patch = field[:, :, top : top + k, left : left + k]
                out[:, :, row, column] += torch.einsum("bckl,ockl->bo", patch, kernel)
    return (out + module.bias[:, None, None]).clamp_min(0)


@pytest.mark.parametrize(("kernel_size", "distance"), [(1, 0), (1, 1), (1, 3), (2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize("size", [(9, 9), (5, 8)])
def test_equals_four_corner_kernels(kernel_size, distance, size):
    module = MaskedAttentionReconstruction(3, kernel_size, distance).double()
    torch.nn.init.normal_(module.bias)
    x = torch.randn(2, 3, *size, dtype=torch.double)
    torch.testing.assert_close(module.mask(x), corner_kernels(module, x))


@pytest.mark.parametrize(("kernel_size", "distance"), [(1, 0), (1, 2), (2, 1), (3, 0)])
def test_receptive_field(kernel_size, distance):
    """The centre has no gradient, the corners have, and nothing outside of L = 2k + 2d + 1 has."""
    module = MaskedAttentionReconstruction(2, kernel_size, distance)
    torch.nn.init.ones_(module.weight)
    x = torch.ones(1, 2, 21, 21, requires_grad=True)
    module.mask(x)[0, :, 10, 10].sum().backward()
    gradient = x.grad[0].abs().sum(0)
    reach = kernel_size + distance
    expected = torch.zeros(21, 21)
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            if abs(row) > distance and abs(column) > distance:
                expected[10 + row, 10 + column] = 1
    assert (gradient[10, 10]) == 0
    assert torch.equal(gradient > 0, expected > 0)


@given(st.integers(1, 13), st.integers(1, 13), st.integers(1, 3), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_keeps_shape(height, width, kernel_size, distance):
    x = torch.randn(1, 2, height, width)
    assert MaskedAttentionReconstruction(2, kernel_size, distance)(x).shape == x.shape


@pytest.mark.parametrize("form", ["simam", "paper"])
def test_simam_by_the_formula(form):
    x = torch.randn(2, 3, 4, 5, dtype=torch.double)
    expected = torch.empty_like(x)
    for b in range(2):
        for c in range(3):
            values = x[b, c].flatten().tolist()
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
            for i in range(4):
                for j in range(5):
                    energy = (x[b, c, i, j] - mean) ** 2 / (4 * (variance + 1e-4)) + 0.5
                    exponent = energy if form == "simam" else 1 / energy
                    expected[b, c, i, j] = x[b, c, i, j] / (1 + torch.exp(-exponent))
    torch.testing.assert_close(SimAM(form)(x), expected)


def test_simam_of_a_single_location_is_finite():
    assert torch.isfinite(SimAM()(torch.ones(1, 2, 1, 1))).all()


@pytest.mark.parametrize(("kernel_size", "distance"), [(0, 1), (1, -1)])
def test_refuses_impossible_fields(kernel_size, distance):
    with pytest.raises(ValueError, match="at least"):
        MaskedAttentionReconstruction(2, kernel_size, distance)
