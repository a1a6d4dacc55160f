"""PANDA, mean-shifted contrast and SimpleNet, beside slow computations."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from anomalib_memd.models.panda import MeanShiftedModel, PANDAModel, contrastive_loss
from anomalib_memd.models.simplenet import SimpleNetModel

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_panda_draws_features_to_their_mean():
    model = PANDAModel("resnet18", weights="random").train()
    vectors = model.vectors(IMAGES)
    model.fit_centre(vectors.detach())
    expected = np.square(vectors.detach().numpy() - vectors.detach().numpy().mean(0)).sum(1).mean()
    assert float(model.loss(IMAGES)) == pytest.approx(expected, rel=1e-4)
    learning = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"layer3", "layer4"}
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("backbone", "layer", "kept"), [("convnext_atto", "stages.3", ("stem", "stages_0", "stages_1"))]
)
def test_other_backbones_learn_in_their_last_two_stages(backbone, layer, kept):
    model = PANDAModel(backbone, layer, "random")
    for name, parameter in model.backbone.feature_extractor.named_parameters():
        assert parameter.requires_grad != name.startswith(kept)


def test_contrast_is_the_chance_of_finding_the_other_view():
    first, second = (nn.functional.normalize(torch.randn(4, 6), dim=1) for _ in range(2))
    both, expected = torch.cat([first, second]).double().numpy(), []
    for i in range(8):
        others = [math.exp(both[i] @ both[k] / 0.25) for k in range(8) if k != i]
        expected.append(-math.log(math.exp(both[i] @ both[(i + 4) % 8] / 0.25) / sum(others)))
    assert float(contrastive_loss(first, second, 0.25)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_mean_shifted_features_are_directions_from_the_mean():
    model = MeanShiftedModel("resnet18", weights="random").eval()
    vectors = model.vectors(IMAGES).detach().double().numpy()
    model.fit_centre(torch.from_numpy(vectors).float())
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shifted = unit - unit.mean(0)
    expected = shifted / np.linalg.norm(shifted, axis=1, keepdims=True)
    np.testing.assert_allclose(model.shifted(IMAGES).detach(), expected, atol=1e-2)
    assert model.density.unit


def test_views_differ_and_keep_the_size():
    model = MeanShiftedModel("resnet18", weights="random")
    first, second = model.augment(IMAGES), model.augment(IMAGES)
    assert first.shape == IMAGES.shape
    assert not torch.equal(first, second)


def test_simplenet_has_a_truncated_loss_of_each_location():
    model = SimpleNetModel("resnet18", ("layer1", "layer2"), "random", noise=0.5, hidden=8).eval()
    torch.manual_seed(0)
    found = float(model.loss(IMAGES))
    torch.manual_seed(0)
    adapted = model.adaptor(model.features(IMAGES))
    noisy = adapted + 0.5 * torch.randn_like(adapted)
    normal, abnormal = (model.discriminator(x).detach().numpy().ravel() for x in (adapted, noisy))
    expected = np.mean([max(0.0, 0.5 - d) for d in normal]) + np.mean([max(0.0, 0.5 + d) for d in abnormal])
    assert found == pytest.approx(expected, rel=1e-5)
    score = model(IMAGES).pred_score.detach().numpy()
    np.testing.assert_allclose(score, -normal.reshape(3, -1).min(1), rtol=1e-5)


def test_simplenet_joins_averaged_layers_on_the_finest_grid():
    model = SimpleNetModel("resnet18", ("layer1", "layer2"), "random").eval()
    features, maps = model.features(IMAGES), model.backbone(IMAGES)
    assert features.shape == (3, 64 + 128, 16, 16)
    torch.testing.assert_close(features[:, :64, 3, 4], maps["layer1"][:, :, 2:5, 3:6].mean((2, 3)))
