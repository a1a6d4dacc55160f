"""Synthetic negatives: where they change images, and where not."""

import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_memd.components.negatives import (
    KINDS,
    FeatureNoise,
    ImageSynthesis,
    field_of_view,
    lesion,
    synthesise,
)
from anomalib_memd.data.tissue import render
from anomalib_memd.modality import Modality


@pytest.fixture(scope="module")
def pairs():
    return [render(96, seed)[0] for seed in range(2)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if ImageSynthesis(kind).changes_images])
def test_changes_both_modalities_in_the_same_place(kind, pairs):
    for seed in range(15):
        changed, mask = ImageSynthesis(kind)(pairs[0], pairs[1], seed)
        assert mask.any()
        for modality, image in changed.items():
            assert image.shape == (3, 96, 96)
            assert image.min() >= 0
            assert image.max() <= 1
            difference = (image - pairs[0][modality]).abs().amax(0)
            assert difference[mask > 0].mean() > 5 * difference[mask == 0].mean()


@pytest.mark.parametrize("kind", list(KINDS))
def test_is_a_function_of_the_seed(kind, pairs):
    torch.manual_seed(1)
    first, first_mask = ImageSynthesis(kind)(pairs[0], pairs[1], 7)
    torch.manual_seed(2)
    second, second_mask = ImageSynthesis(kind)(pairs[0], pairs[1], 7)
    assert torch.equal(first_mask, second_mask)
    assert all(torch.equal(first[m], second[m]) for m in Modality)


def test_a_raised_surface_is_smoothed_in_proportion_to_the_image(monkeypatch):
    """So a lesion is drawn alike at any size; the kernel reaches two deviations."""
    blurred = {}

    def recorded(image, reach, deviation):
        blurred.setdefault(min(image.shape[-2:]), []).append((reach, deviation))
        return gaussian_blur(image, reach, deviation)

    monkeypatch.setattr(lesion, "gaussian_blur", recorded)
    for side in (64, 128, 256):
        images = [render(side, seed)[0] for seed in range(2)]
        for seed in range(6):
            ImageSynthesis("lesion")(*images, seed)
    shares = {side: [deviation / side for _, deviation in found] for side, found in blurred.items()}
    assert len(shares[256]) > 5
    assert shares[64] == pytest.approx(shares[256])
    assert shares[128] == pytest.approx(shares[256])
    assert all(1 / 256 <= share <= 6 / 256 for share in shares[256])
    assert all(
        reach % 2 == 1 and reach // 2 >= 2 * deviation for found in blurred.values() for reach, deviation in found
    )


def test_mixed_takes_turns(pairs):
    for seed, kind in enumerate(["lesion", "lesion", "perlin", "perlin", "lesion"]):
        mixed, mask = ImageSynthesis("mixed")(*pairs, seed)
        alone, own = ImageSynthesis(kind)(*pairs, seed)
        assert torch.equal(mask, own * {"lesion": 1.0, "perlin": 0.5}[kind])
        assert all(torch.equal(mixed[modality], alone[modality]) for modality in alone)


def test_mixed_draws_both_kinds_into_each_image_of_no_pair(pairs):
    for seed, kind in enumerate(["lesion", "perlin"]):
        mixed, masks = synthesise(ImageSynthesis("mixed"), *pairs, registered=False, seed=seed)
        alone, own = synthesise(ImageSynthesis(kind), *pairs, registered=False, seed=seed)
        assert all(torch.equal(masks[modality] > 0, own[modality] > 0) for modality in alone)
        assert all(torch.equal(mixed[modality], alone[modality]) for modality in alone)


def test_lesions_stay_on_tissue(pairs):
    visible = field_of_view(pairs[0])
    for seed in range(15):
        changed, mask = ImageSynthesis()(pairs[0], pairs[1], seed)
        assert not mask[~visible].any()
        assert torch.equal(changed[Modality.WLI][:, :3, :3], pairs[0][Modality.WLI][:, :3, :3])


def test_noise_alone_leaves_images_alone(pairs):
    changed, mask = ImageSynthesis("noise")(pairs[0], pairs[1], 0)
    assert not mask.any()
    assert all(torch.equal(changed[m], pairs[0][m]) for m in Modality)


def test_black_image_is_no_error():
    black = {Modality.WLI: torch.zeros(3, 32, 32)}
    changed, _ = ImageSynthesis()(black, black, 0)
    assert torch.isfinite(changed[Modality.WLI]).all()


def test_feature_noise_has_its_scale_and_place():
    noise = FeatureNoise(std=0.5)
    mask = noise.blobs((64, 16, 16), torch.device("cpu"))
    assert 0.2 < mask.float().mean() < 0.3
    scale = torch.tensor([1.0, 4.0])
    added = noise(torch.zeros(64, 2, 16, 16), mask, scale)
    assert (added.movedim(1, -1)[~mask] == 0).all()
    torch.testing.assert_close(added.movedim(1, -1)[mask].std(0), 0.5 * scale, rtol=0.05, atol=0)
