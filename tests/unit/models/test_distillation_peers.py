"""EDC, ReContrast, SCRD4AD, Skip-TS and multiresolution distillation, beside slow computations."""

import numpy as np
import pytest
import torch
from torch import nn

from anomalib_memd.models import ReContrast
from anomalib_memd.models.edc import EDCModel
from anomalib_memd.models.multiresolution import Clone, MultiresolutionKDModel
from anomalib_memd.models.recontrast import ReContrastModel, stop_easy
from anomalib_memd.models.scrd4ad import SCRD4ADModel, add_noise
from anomalib_memd.models.skip_ts import SkipTSModel, inconsistency

RANDOM = {"backbone": "resnet18", "weights": "random"}
IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def cosine(a, b):
    a, b = a.detach().double().numpy().ravel(), b.detach().double().numpy().ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def whole_maps(pairs):
    """Sum over maps of the mean over images of one minus the cosine."""
    return sum(np.mean([1 - cosine(a, b) for a, b in zip(*pair, strict=True)]) for pair in pairs)


def at_locations(first, second):
    """One minus the cosine of each location, averaged over each image."""
    rows = [
        [1 - cosine(a[:, i, j], b[:, i, j]) for i in range(a.shape[1]) for j in range(a.shape[2])]
        for a, b in zip(first, second, strict=True)
    ]
    return np.mean(rows, axis=1)


def test_edc_compares_whole_maps_and_the_encoder_learns_through_the_deepest_alone():
    model = EDCModel(**RANDOM).eval()
    maps, made = model.reconstruct(IMAGES)
    assert float(model.loss(IMAGES)) == pytest.approx(whole_maps(zip(maps, made, strict=True)), abs=1e-5)
    assert not any(m.requires_grad for m in maps)
    model.decoder = nn.Module()
    model.decoder.forward = lambda deepest: [m.clone() for m in maps]  # It says nothing of the deepest map.
    assert not model.loss(IMAGES).requires_grad


def test_edc_learns_a_deepest_layer_that_has_no_weights():
    model = EDCModel(**RANDOM, pretrained_deepest=False)
    maps, made = model.reconstruct(IMAGES)
    assert [m.shape for m in maps] == [m.shape for m in made]
    model.loss(IMAGES).backward()
    for learning in (model.deepest[0].downsample[0].weight, next(model.encoder.parameters())):
        assert learning.grad.abs().sum() > 0
    assert not any("layer4" in name for name in model.encoder.state_dict())


def test_recontrast_compares_each_encoder_with_what_the_other_gives():
    model = ReContrastModel(**RANDOM).eval()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    pairs = model.reconstruct(IMAGES)
    assert float(model.loss(IMAGES)) == pytest.approx(whole_maps(pairs) / 2, abs=1e-5)
    frozen, learning = list(model.frozen(IMAGES).values()), model.encoder(IMAGES)
    for (target, _), expected in zip(pairs, [*frozen, *learning], strict=True):
        torch.testing.assert_close(target, expected.detach())
    decoded = model.decoder(model.bottleneck(learning))
    torch.testing.assert_close(pairs[0][1], model.outputs["frozen"][0](decoded[0]))
    decoded = model.decoder(model.bottleneck(frozen))
    torch.testing.assert_close(pairs[3][1], model.outputs["learning"][0](decoded[0]))


def test_both_encoders_begin_alike():
    model = ReContrastModel(**RANDOM).eval()
    for first, second in zip(model.frozen(IMAGES).values(), model.encoder(IMAGES), strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("factor", [-3.0, 0.0, 1.0])
def test_gradients_of_easy_locations_are_stopped(factor):
    target, made = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5, requires_grad=True)
    stopped = stop_easy(target, made, factor)
    torch.testing.assert_close(stopped, made)
    stopped.sum().backward()
    distance = 1 - torch.cosine_similarity(target, made.detach(), dim=1)
    hard = distance >= distance.mean() + factor * distance.std()
    assert torch.equal(made.grad[:, 0] == 1, hard)
    assert torch.equal(made.grad[:, 0] == 0, ~hard)


def test_more_is_easy_as_the_first_tenth_goes_on(monkeypatch):
    module = ReContrast("resnet18", backbone_weights="random", image_size=(64, 64), steps=100)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    seen = []
    for step in (0, 5, 10, 50):
        module._trainer = type("Trainer", (), {"global_step": step})()
        monkeypatch.setattr(type(module), "trainer", property(lambda self: self._trainer))
        module.training_step(type("Batch", (), {"image": IMAGES})())
        seen.append(module.model.factor)
    assert seen == pytest.approx([-3, -1, 1, 1])


def test_scrd4ad_divides_clean_by_noisy_distances_with_the_weights_of_the_image():
    model = SCRD4ADModel(**RANDOM).eval()
    torch.manual_seed(3)
    found = float(model.loss(IMAGES))
    torch.manual_seed(3)
    noisy = add_noise(IMAGES)
    weights = model.scale(IMAGES).softmax(1).detach().numpy()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)

    def weighed(images):
        teacher = list(model.teacher(images).values())
        made = model.decoder(model.bottleneck(teacher))
        distances = np.stack([at_locations(*pair) for pair in zip(teacher, made, strict=True)], axis=1)
        return (weights * distances).sum(1)

    assert found == pytest.approx(np.mean(weighed(IMAGES) / weighed(noisy)), abs=1e-4)


def test_noise_lies_in_one_small_rectangle_of_each_image():
    images = torch.zeros(6, 3, 256, 160)
    changed = add_noise(images) != 0
    for image in changed:
        rows, columns = image.any(0).any(1).nonzero(), image.any(0).any(0).nonzero()
        height, width = (int(x.max() - x.min()) + 1 for x in (rows, columns))
        assert 9 <= height <= 32
        assert 9 <= width <= 20
        assert image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].float().mean() > 0.9
    assert len({tuple(image.nonzero()[0].tolist()) for image in changed}) > 1


def test_skip_ts_adds_what_scales_do_not_agree_in():
    model = SkipTSModel(**RANDOM).eval()
    distances = model.distances(IMAGES)
    assert [d.shape[-1] for d in distances] == [16, 8, 4]
    expected = sum(float(d.mean()) for d in distances)
    for fine, coarse in ((0, 1), (1, 2)):
        enlarged = nn.Upsample(scale_factor=2, mode="bilinear")(distances[coarse])
        expected += 0.05 * float((distances[fine] - enlarged).square().mean())
    assert float(model.loss(IMAGES)) == pytest.approx(expected, abs=1e-5)
    flat = [torch.full((1, 1, n, n), 0.3) for n in (8, 4, 2)]
    assert float(inconsistency(flat)) == pytest.approx(0, abs=1e-12)


def test_multiresolution_distillation_is_by_values_and_directions():
    layers = ("layer1", "layer2", "layer3")
    model = MultiresolutionKDModel(layers=layers, **RANDOM).eval()
    pairs = model.pairs(IMAGES)
    assert all(teacher.shape == student.shape for teacher, student in pairs)
    expected = [
        sum(0.01 * float((t[i] - s[i]).square().mean()) + 1 - cosine(t[i], s[i]) for t, s in pairs) for i in range(3)
    ]
    np.testing.assert_allclose(model(IMAGES).pred_score.detach().numpy(), expected, rtol=1e-4)
    assert float(model.loss(IMAGES)) == pytest.approx(np.mean(expected), abs=1e-4)


def test_a_clone_is_smaller_than_what_it_clones():
    model = MultiresolutionKDModel(layers=("layer1", "layer4"), **RANDOM)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (model.student, model.teacher)]
    assert sizes[0] < sizes[1] / 5
    assert [m.shape[1:] for m in Clone([8, 16], [2, 8])(IMAGES)] == [(8, 32, 32), (16, 8, 8)]
