"""The selective scan against a loop over positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_memd.models.wtngan.selective_scan import linear_recurrence, selective_scan
from anomalib_memd.models.wtngan.visual_state_space import FourWayScan


def recur_slowly(decay, drive):
    states, state = [], torch.zeros_like(drive[0])
    for factor, inflow in zip(decay, drive, strict=True):
        state = factor * state + inflow
        states.append(state)
    return torch.stack(states)


def scan_slowly(x, step, a, b, c, d):
    """One image, group and channel at a time."""
    y = torch.zeros_like(x)
    for image in range(x.shape[1]):
        for group in range(x.shape[2]):
            for channel in range(x.shape[3]):
                h = torch.zeros(a.shape[-1], dtype=x.dtype)
                for t in range(x.shape[0]):
                    delta, value = step[t, image, group, channel], x[t, image, group, channel]
                    h = torch.exp(delta * a[group, channel]) * h + delta * b[t, image, group] * value
                    y[t, image, group, channel] = c[t, image, group] @ h + d[group, channel] * value
    return y


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_all_states_are_those_of_a_loop(length, seed):
    random = torch.Generator().manual_seed(seed)
    decay = torch.rand(length, 2, 3, generator=random, dtype=torch.double)
    drive = torch.randn(length, 2, 3, generator=random, dtype=torch.double)
    torch.testing.assert_close(linear_recurrence(decay, drive), recur_slowly(decay, drive))


def test_gradients_are_those_of_a_loop():
    decay = torch.rand(11, 2, dtype=torch.double, requires_grad=True)
    drive = torch.randn(11, 2, dtype=torch.double, requires_grad=True)
    weights = torch.randn(11, 2, dtype=torch.double)
    fast = torch.autograd.grad((linear_recurrence(decay, drive) * weights).sum(), (decay, drive))
    slow = torch.autograd.grad((recur_slowly(decay, drive) * weights).sum(), (decay, drive))
    torch.testing.assert_close(fast, slow)


def test_only_one_of_both_may_need_a_gradient():
    drive = torch.randn(5, 1, requires_grad=True)
    linear_recurrence(torch.full((5, 1), 0.5), drive).sum().backward()
    torch.testing.assert_close(drive.grad[:, 0], torch.tensor([1.9375, 1.875, 1.75, 1.5, 1.0]))


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match="one shape"):
        linear_recurrence(torch.zeros(3, 1), torch.zeros(4, 1))


def test_selective_scan_equals_its_definition():
    length, images, groups, channels, states = 10, 2, 3, 4, 5
    x, step = torch.randn(2, length, images, groups, channels, dtype=torch.double)
    step = step.exp() / 5
    a = -torch.rand(groups, channels, states, dtype=torch.double) * 3
    b, c = torch.randn(2, length, images, groups, states, dtype=torch.double)
    d = torch.randn(groups, channels, dtype=torch.double)
    torch.testing.assert_close(selective_scan(x, step, a, b, c, d), scan_slowly(x, step, a, b, c, d))


def test_four_directions_see_the_whole_image():
    """A change at one location is felt at every other, in a single layer."""
    scan = FourWayScan(4, state_size=2).double()
    x = torch.randn(1, 4, 5, 6, dtype=torch.double)
    changed = x.clone()
    changed[..., 2, 3] += 1
    assert ((scan(x) - scan(changed)).abs().sum(1) > 0).all()


def test_directions_are_equivalent_under_rotation():
    """With the same weights in all directions, half a turn and transposition of the image do the same to the result."""
    scan = FourWayScan(4, state_size=2).double()
    for parameter in scan.parameters():
        parameter.data[:] = parameter.data[:1]
    x = torch.randn(1, 4, 5, 6, dtype=torch.double)
    torch.testing.assert_close(scan(x.flip(-1, -2)), scan(x).flip(-1, -2))
    torch.testing.assert_close(scan(x.mT), scan(x).mT)
