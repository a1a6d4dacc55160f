"""The gate between own features and those that attention finds."""

import pytest
import torch

from anomalib_memd.components.gate import Gate


def test_the_gate_is_the_equation():
    gate = Gate(4)
    attended, own, other = torch.randn(3, 2, 5, 4)
    found = gate(attended, own, other)
    weight, bias = gate.linear.weight, gate.linear.bias
    for image in range(2):
        for place in range(5):
            joined = torch.cat([attended[image, place], own[image, place], other[image, place]])
            alpha = 1 / (1 + torch.exp(-(weight @ joined + bias)))
            expected = alpha * own[image, place] + (1 - alpha) * attended[image, place]
            torch.testing.assert_close(found[image, place], expected)


@pytest.mark.parametrize(("bias", "kept"), [(50.0, 1), (-50.0, 0)])
def test_an_open_gate_keeps_the_features_and_a_closed_one_takes_the_answer(bias, kept):
    gate = Gate(4)
    gate.linear.weight.data.zero_()
    gate.linear.bias.data.fill_(bias)
    attended, own, other = torch.randn(3, 2, 5, 4)
    torch.testing.assert_close(gate(attended, own, other), own if kept else attended)
