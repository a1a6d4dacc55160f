"""How well maps overlap masks."""

import pytest
import torch

from anomalib_memd.components.overlap import dice_loss


def test_dice_is_twice_the_overlap_over_both():
    mask = torch.zeros(1, 1, 10, 10)
    mask[..., :5, :] = 1
    assert float(dice_loss(mask, mask)) == pytest.approx(0)
    assert float(dice_loss(1 - mask, mask)) == pytest.approx(1 - 1 / 101)
