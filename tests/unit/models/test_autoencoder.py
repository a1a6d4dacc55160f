"""Autoencoders of images, beside their formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anomalib_memd.models import D2UE, AutoEncoder
from anomalib_memd.models.autoencoder import KINDS, D2UEModel, DDADModel, centered_kernel_alignment
from anomalib_memd.models.autoencoder.kinds import Memory, coarse_noise
from anomalib_memd.models.feature_autoencoder import FeatureAutoEncoderModel

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def built(kind):
    torch.manual_seed(0)
    return KINDS[kind]((32, 32), "resnet18", "random").eval()


def squared(images, made):
    return float((images - made).square().mean())


def test_the_plain_one_is_scored_by_its_squared_error():
    model = built("plain")
    made = model.network(IMAGES)
    found = model(IMAGES)
    assert float(model.loss(IMAGES)) == pytest.approx(squared(IMAGES, made))
    torch.testing.assert_close(found.pred_score, (IMAGES - made).square().mean((1, 2, 3)))
    torch.testing.assert_close(found.anomaly_map[:, 0], (IMAGES - made).square().mean(1))


def test_the_perceptual_one_has_relative_distances_of_features():
    model = built("perceptual")
    made = model.network(IMAGES)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    first, second = (model.backbone(((x + 1) / 2 - mean[:, None, None]) / std[:, None, None]) for x in (IMAGES, made))
    expected = 0.0
    for name in ("layer1", "layer2"):
        a, b = first[name], second[name]
        ratio = (a - b).abs().mean(1) / a.abs().mean((1, 2, 3))[:, None, None]
        expected += float(torch.nn.functional.interpolate(ratio[:, None], (32, 32), mode="bilinear").mean()) / 2
    assert float(model.loss(IMAGES)) == pytest.approx(expected, rel=1e-4)
    model.loss(IMAGES).backward()
    assert model.network.encoder[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.backbone.parameters())


def test_the_variational_one_adds_the_divergence_of_normal_distributions():
    model = built("variational")
    torch.manual_seed(1)
    found = float(model.loss(IMAGES))
    torch.manual_seed(1)
    mean, logarithm = model.network.moments(IMAGES)
    made = model.network.decode(mean + torch.randn_like(mean) * (logarithm / 2).exp())
    grid = np.linspace(-12, 12, 20001)
    divergences = []
    for m, s in zip(mean.flatten().tolist(), (logarithm / 2).exp().flatten().tolist(), strict=True):
        own, prior = stats.norm.logpdf(grid, m, s), stats.norm.logpdf(grid)
        divergences.append(np.trapezoid(np.exp(own) * (own - prior), grid))
    assert found == pytest.approx(squared(IMAGES, made) + 0.005 * np.mean(divergences), rel=1e-4)


def test_the_constrained_one_wants_the_same_vector_again():
    model = built("constrained")
    made = model.network(IMAGES)
    apart = squared(model.network.encoder(IMAGES), model.network.encoder(made))
    assert float(model.loss(IMAGES)) == pytest.approx(squared(IMAGES, made) + apart, rel=1e-5)


def test_the_one_with_a_memory_adds_the_entropy_of_its_weights():
    model = built("memory")
    weights = model.memory.weights(model.network[0](IMAGES)).detach().numpy()
    entropy = stats.entropy(weights, axis=1).mean()
    assert float(model.loss(IMAGES)) == pytest.approx(
        squared(IMAGES, model.network(IMAGES)) + 0.0002 * entropy, rel=1e-5
    )


def test_a_memory_learns_where_weights_are_nothing():
    model = built("memory")
    model.loss(IMAGES).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert (model.memory.weights(model.network[0](IMAGES)) == 0).any()


@given(st.integers(0, 99), st.integers(2, 20))
def test_weights_of_a_memory_are_few_and_sum_to_one(seed, slots):
    torch.manual_seed(seed)
    memory, given_vectors = Memory(slots, 5), torch.randn(3, 5)
    weights = memory.weights(given_vectors)
    torch.testing.assert_close(weights.sum(1), torch.ones(3), rtol=1e-3, atol=1e-3)
    for row, vector in zip(weights, given_vectors, strict=True):
        cosines = torch.stack([torch.cosine_similarity(vector, m, dim=0) for m in memory.vectors])
        shares = cosines.softmax(0)
        assert torch.equal(row > 0, shares > 1 / slots) or (shares - 1 / slots).abs().min() < 1e-6


def test_the_denoising_one_sees_noise_in_training_alone():
    model = built("denoising")
    torch.manual_seed(5)
    found = float(model.loss(IMAGES))
    torch.manual_seed(5)
    made = model.network(IMAGES + coarse_noise(IMAGES, 16, 0.4))
    assert found == pytest.approx(squared(IMAGES, made), rel=1e-5)
    torch.testing.assert_close(model(IMAGES).pred_score, (IMAGES - model.network(IMAGES)).square().mean((1, 2, 3)))
    noise = coarse_noise(torch.zeros(20, 3, 128, 128), 16, 0.4)
    assert 0.2 < float(noise.std()) < 0.4  # Interpolation between nodes takes some of it.
    assert float((noise[..., 1:] - noise[..., :-1]).abs().mean()) < 0.1


def test_kinds_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="no autoencoder of kind 'sparse'; there are plain, ssim"):
        AutoEncoder("sparse")


@given(st.integers(0, 99))
def test_alignment_of_kernels_is_the_quotient_of_their_products(seed):
    random = torch.Generator().manual_seed(seed)
    x, y = torch.randn(7, 3, generator=random).double(), torch.randn(7, 5, generator=random).double()
    centre = np.eye(7) - 1 / 7
    first, second = (centre @ (v @ v.T).numpy() @ centre for v in (x, y))
    expected = np.sum(first * second) / np.sqrt(np.sum(first**2) * np.sum(second**2))
    assert float(centered_kernel_alignment(x, y)) == pytest.approx(expected, rel=1e-6)
    assert float(centered_kernel_alignment(x, 3 * x + 1)) == pytest.approx(1, rel=1e-6)


def test_autoencoders_of_d2ue_differ_from_those_before():
    torch.manual_seed(0)
    model = D2UEModel((32, 32)).eval()
    first, second, third = model.networks
    assert float(model.loss(IMAGES)) == pytest.approx(squared(IMAGES, first(IMAGES)), rel=1e-5)
    model.learning = 2
    vectors = [network.encoder(IMAGES) for network in model.networks]
    aligned = [float(centered_kernel_alignment(vectors[2], vectors[k])) for k in (0, 1)]
    loss = model.loss(IMAGES)
    assert float(loss) == pytest.approx(squared(IMAGES, third(IMAGES)) + np.mean(aligned), rel=1e-5)
    loss.backward()
    assert all(p.grad is None for network in (first, second) for p in network.parameters())


def test_the_map_of_d2ue_is_the_deviation_of_errors_times_their_slopes():
    torch.manual_seed(0)
    model = D2UEModel((32, 32)).eval()
    weighed = []
    for network in model.networks:
        images = IMAGES.clone().requires_grad_()
        error = (images - network(images)).abs()
        (slope,) = torch.autograd.grad(error.sum(), images)
        weighed.append((error * slope.abs()).detach().numpy())
    expected = np.std(weighed, axis=0).mean(1)
    with torch.no_grad():
        found = model(IMAGES)
    np.testing.assert_allclose(found.anomaly_map[:, 0], expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.pred_score, expected.mean((1, 2)), rtol=1e-3)


def test_an_autoencoder_of_d2ue_is_left_as_it_is_when_the_next_one_learns():
    module = D2UE(image_size=(32, 32), networks=2, steps=3, visualizer=False)
    assert module.phases == 2
    module._trainer = type("Trainer", (), {"should_stop": False})()
    module.train()
    module.end_phase()
    before = {name: buffer.clone() for name, buffer in module.model.networks[0].named_buffers()}
    module.model.loss(IMAGES)
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.model.networks[0].named_buffers())


def test_ddad_is_where_its_autoencoders_disagree():
    torch.manual_seed(0)
    model = DDADModel((32, 32), networks=3).eval()
    made = np.stack([network(IMAGES).detach().numpy() for network in model.networks])
    found = model(IMAGES)
    np.testing.assert_allclose(found.anomaly_map[:, 0].detach(), made.std(0).mean(1), rtol=1e-4, atol=1e-6)
    assert float(model.loss(IMAGES)) == pytest.approx(sum(squared(IMAGES, torch.from_numpy(m)) for m in made), rel=1e-5)


@pytest.mark.parametrize("kind", ["ssim", "mse"])
def test_a_feature_autoencoder_reconstructs_features(kind):
    layers = ("act1", "layer1", "layer2")
    model = FeatureAutoEncoderModel("resnet18", layers, "random", kind, widths=(10, 12)).eval()
    images = torch.randn(2, 3, 64, 64)
    features = model.features(images)
    assert features.shape == (2, 64 + 64 + 128, 16, 16)
    torch.testing.assert_close(features[:, 64:128], model.backbone(images)["layer1"])
    if kind == "mse":
        made = model.autoencoder(features)
        assert float(model.loss(images)) == pytest.approx(squared(features, made), rel=1e-5)
        torch.testing.assert_close(model(images).pred_score, (features - made).square().mean((1, 2, 3)))
    model.autoencoder = torch.nn.Identity()
    assert float(model.loss(images)) == pytest.approx(0, abs=1e-6)
