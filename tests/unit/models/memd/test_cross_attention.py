"""Cross-modal fusion against attention written out."""

import pytest
import torch

from anomalib_memd.models.memd.cross_attention import CrossAttention, CrossModalFusion


def attend_slowly(layer, wli, nbi):
    batch, channels = wli.shape[:2]
    size = channels // layer.heads
    query = layer.query(wli).flatten(2)
    key, value = (x.flatten(2) for x in layer.key_value(nbi).chunk(2, 1))
    out = torch.zeros_like(query)
    for b in range(batch):
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            weights = torch.softmax(query[b, part].T @ key[b, part] / size**0.5, dim=-1)
            out[b, part] = (weights @ value[b, part].T).T
    return torch.relu(layer.norm(out.view(wli.shape))) + wli


def test_equals_the_equation():
    layer = CrossAttention(8, 2).double().eval()
    wli, nbi = torch.randn(2, 2, 8, 3, 5, dtype=torch.double).unbind(0)
    torch.testing.assert_close(layer(wli, nbi), attend_slowly(layer, wli, nbi))


def test_a_gate_weighs_what_attention_finds():
    layer = CrossAttention(8, 2, gated=True).double().eval()
    plain = CrossAttention(8, 2).double().eval()
    plain.load_state_dict(layer.state_dict(), strict=False)
    wli, nbi = torch.randn(2, 2, 8, 3, 5, dtype=torch.double).unbind(0)
    plain.norm = torch.nn.Identity()
    attended = attend_slowly(plain, wli, nbi) - wli  # The ReLU of what attention finds.
    found = layer(wli, nbi)
    # Where the answer is positive it is known; there the gate lies between it and the features.
    known = attended > 0
    low, high = torch.minimum(attended, wli), torch.maximum(attended, wli)
    assert ((found >= low - 1e-9) & (found <= high + 1e-9))[known].all()
    layer.gate.linear.weight.data.zero_()
    layer.gate.linear.bias.data.zero_()
    torch.testing.assert_close(layer(wli, nbi)[known], ((attended + wli) / 2)[known])


def test_layers_are_stacked_on_the_queries():
    fusion = CrossModalFusion(8, layers=2, heads=4).double().eval()
    wli, nbi = torch.randn(2, 1, 8, 4, 4, dtype=torch.double).unbind(0)
    expected = attend_slowly(fusion.layers[1], attend_slowly(fusion.layers[0], wli, nbi), nbi)
    torch.testing.assert_close(fusion(wli, nbi), expected)


def test_depends_on_both_modalities():
    fusion = CrossModalFusion(8, heads=2)
    wli, nbi = torch.randn(2, 2, 8, 4, 4).unbind(0)
    wli.requires_grad_()
    nbi.requires_grad_()
    fusion(wli, nbi).square().sum().backward()
    assert wli.grad.abs().sum() > 0
    assert nbi.grad.abs().sum() > 0


def test_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="no multiple"):
        CrossModalFusion(10, heads=4)
