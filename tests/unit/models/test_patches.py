"""CutPaste, foreign patches and CMP: what is drawn, and what is learned of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anomalib_memd.models import ForeignPatch
from anomalib_memd.models.cmp import CMPModel, MaskedPredictor, pseudo_lesion
from anomalib_memd.models.cutpaste import CutPasteModel, cut_and_paste, open_tissue, scar
from anomalib_memd.models.foreign_patch import KINDS, ForeignPatchModel, harmonic, interpolate, natural, poisson

seeds = st.integers(0, 10_000)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def smooth(seed, side=64):
    coarse = torch.rand(1, 3, 6, 6, generator=generator(seed))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)[0]


@given(seeds, st.sampled_from([cut_and_paste, scar]))
def test_a_patch_changes_nothing_outside_of_its_mask(seed, draw):
    image = torch.rand(3, 64, 96, generator=generator(seed))
    made, mask = draw(image, generator(seed))
    assert made.shape == image.shape
    assert torch.equal(made[:, ~mask], image[:, ~mask])
    assert mask.any()
    assert made.min() >= 0
    assert made.max() <= 1
    again = draw(image, generator(seed))
    assert torch.equal(again.image, made)


@given(seeds)
def test_a_patch_has_two_to_fifteen_hundredths_of_the_image(seed):
    _, mask = cut_and_paste(torch.rand(3, 128, 128), generator(seed))
    assert 0.018 < mask.float().mean() < 0.155
    _, thin = scar(torch.rand(3, 256, 256), generator(seed))
    assert thin.sum() <= 25 * 16 * 1.3


@given(seeds, st.sampled_from([cut_and_paste, scar]))
def test_an_anatomical_patch_lies_on_open_tissue(seed, draw):
    image = 0.5 * torch.ones(3, 64, 64)
    image[:, :, :20] = 0
    image[:, 30:34, 40:50] = 1
    (allowed,) = open_tissue(image[None])
    assert not allowed[:, :15].any()
    assert not allowed[30:34, 40:50].any()
    assert allowed[50:, 30:].all()
    _, mask = draw(image, generator(seed), allowed)
    assert not (mask & ~allowed).any()


def test_cutpaste_tells_three_classes():
    model = CutPasteModel("resnet18", "layer2", "random", hidden=(8,)).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.manual_seed(0)
    found = float(model.loss(images))
    torch.manual_seed(0)
    patched, scarred = model.draw(images)
    assert not torch.equal(patched, images)
    assert not torch.equal(scarred, patched)
    logits = model.head(model.vectors(torch.cat([images, patched, scarred]))).detach().double().numpy()
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.mean([np.log(chance[row, row // 2]) for row in range(6)])
    assert found == pytest.approx(expected, rel=1e-4)


@given(seeds)
def test_interpolation_is_linear(seed):
    image, donor = smooth(seed), smooth(seed + 1)
    made, target = interpolate(image, donor, generator(seed))
    torch.testing.assert_close(made, (1 - target) * image + target * donor)
    inside = target[target > 0]
    assert 0.05 <= float(inside.min()) == float(inside.max()) <= 0.95


@given(seeds)
def test_poisson_interpolation_has_the_gradients_of_both(seed):
    """Inside, the Laplacian is the weighted mean of both; at the rim nothing changes."""
    image, donor = 0.4 + 0.2 * smooth(seed), 0.45 + 0.1 * torch.rand(3, 64, 64, generator=generator(seed + 1))
    made, target = poisson(image, donor, generator(seed))
    assert torch.equal(made[:, target == 0], image[:, target == 0])

    def laplacian(x):
        return torch.roll(x, 1, -1) + torch.roll(x, -1, -1) + torch.roll(x, 1, -2) + torch.roll(x, -1, -2) - 4 * x

    weight = float(target.max())
    expected = (1 - weight) * laplacian(image) + weight * laplacian(donor)
    inside = target > 0
    inside[[0, -1]] = inside[:, [0, -1]] = False  # There rolling takes the other side.
    torch.testing.assert_close(laplacian(made)[:, inside], expected[:, inside], atol=1e-4, rtol=1e-4)


def test_what_is_harmonic_is_known_by_its_rim():
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")
    plane = torch.stack([2 * x - y + 1, x * y, x**2 - y**2])
    torch.testing.assert_close(harmonic(plane), plane[:, 1:-1, 1:-1], atol=1e-4, rtol=1e-4)


@given(seeds)
def test_natural_patches_count_by_how_much_they_change(seed):
    image, donor = smooth(seed), smooth(seed + 1)
    made, target = natural(image, donor, generator(seed))
    assert torch.equal(made[:, target == 0], image[:, target == 0])
    change = 255 * (made - image).abs().mean(0)
    expected = 1 / (1 + torch.exp(-(change - 24) / 12))
    torch.testing.assert_close(target[target > 0], expected[target > 0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_regresses_how_foreign_pixels_are(kind):
    model = ForeignPatchModel(kind, [0.5] * 3, [0.25] * 3, widths=(4, 8)).eval()
    images = (torch.stack([smooth(n, 32) for n in range(3)]) - 0.5) / 0.25
    torch.manual_seed(0)
    found = float(model.loss(images))
    torch.manual_seed(0)
    blended, target = model.draw(images)
    chance = torch.sigmoid(model.network(blended)).double()
    expected = -(target * chance.log() + (1 - target) * (1 - chance).log()).mean()
    assert found == pytest.approx(float(expected), rel=1e-4)
    torch.testing.assert_close(model(images).pred_score, model.network(images).sigmoid().mean((1, 2, 3)))


def test_kinds_of_patches_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="no kind of foreign patch 'blur'; there are fpi, pii, nsa"):
        ForeignPatch("blur")


@given(seeds)
def test_pseudo_lesions_lie_in_their_mask(seed):
    image, donor = torch.randn(3, 64, 48, generator=generator(seed)), torch.randn(3, 64, 48)
    made, mask = pseudo_lesion(image, donor, generator(seed))
    assert torch.equal(made[:, ~mask], image[:, ~mask])
    assert 0 < mask.float().mean() <= 4 / 16


def test_no_location_has_seen_itself():
    predictor = MaskedPredictor(16)
    predictor.attention = torch.nn.Identity()  # It looks at the mean of all locations.
    predictor.forward = lambda maps: torch.nn.functional.conv2d(
        maps, predictor.predict.weight * predictor.mask, predictor.predict.bias, padding=2
    )
    maps = torch.randn(1, 16, 9, 9, requires_grad=True)
    predictor(maps)[0, :, 4, 4].sum().backward()
    seen = maps.grad[0].abs().sum(0) > 0
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True
    expected[3:6, 3:6] = False
    assert torch.equal(seen, expected)


def test_cmp_tells_lesions_and_predicts_normal_maps():
    model = CMPModel("resnet18", "layer2", "random").eval()
    images = torch.randn(2, 3, 64, 64)
    torch.manual_seed(0)
    found = float(model.loss(images))
    torch.manual_seed(0)
    maps, predicted = model.predict(torch.cat([images, model.draw(images)]))
    logits = model.classifier(predicted.mean((2, 3))).log_softmax(1)
    told = -(logits[0, 0] + logits[1, 0] + logits[2, 1] + logits[3, 1]) / 4
    expected = told + 0.1 * (predicted[:2] - maps[:2]).square().mean()
    assert found == pytest.approx(float(expected), rel=1e-4)
