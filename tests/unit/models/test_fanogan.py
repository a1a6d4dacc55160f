"""f-AnoGAN: its losses in closed form, and its two phases."""

import pytest
import torch
from torch import nn

from anomalib_memd.models import FAnoGAN
from anomalib_memd.models.fanogan import FAnoGANModel, gradient_penalty

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Linear(nn.Module):
    def __init__(self, length):
        super().__init__()
        weight = torch.randn(3 * 32 * 32)
        self.weight = nn.Parameter(length * weight / weight.norm())

    def forward(self, images):
        return images.flatten(1) @ self.weight


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_the_penalty_is_on_the_slope_of_the_critic(length):
    critic = Linear(length)
    found = gradient_penalty(critic, IMAGES, IMAGES.flip(0))
    assert float(found) == pytest.approx((length - 1) ** 2, abs=1e-5)
    found.backward()
    assert torch.isfinite(critic.weight.grad).all()


def test_losses_are_those_of_wasserstein():
    model = FAnoGANModel((32, 32), latent=6, width=4).eval()
    model.critic = Linear(1.0)
    torch.manual_seed(0)
    found = float(model.critic_loss(IMAGES, penalty=10))
    torch.manual_seed(0)
    made = model.generator(model.draw(IMAGES))
    assert found == pytest.approx(float(model.critic(made).mean() - model.critic(IMAGES).mean()), abs=1e-4)
    torch.manual_seed(0)
    assert float(model.generator_loss(IMAGES)) == pytest.approx(-float(model.critic(made).mean()), abs=1e-5)
    assert made.abs().max() <= 1


def test_the_score_is_the_residual_of_pixels_and_of_features():
    model = FAnoGANModel((32, 32), latent=6, width=4, feature_weight=0.3).eval()
    made = model.generator(model.encoder(IMAGES))
    pixels = (IMAGES - made).square()
    features = (model.critic.features(IMAGES) - model.critic.features(made)).square().mean(1)
    found = model(IMAGES)
    torch.testing.assert_close(found.pred_score, pixels.mean((1, 2, 3)) + 0.3 * features)
    torch.testing.assert_close(found.anomaly_map[:, 0], pixels.mean(1))
    assert float(model.loss(IMAGES)) == pytest.approx(float(found.pred_score.mean()), rel=1e-5)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"multiples of 16 pixels; \(40, 32\) is none"):
        FAnoGANModel((40, 32))


def test_the_encoder_learns_last():
    module = FAnoGAN(image_size=(32, 32), steps=2)
    assert module.held_back_loss(type("Batch", (), {"image": IMAGES})()) is None
    module.end_phase()
    assert module.phase == 1
    assert module.held_back_loss(type("Batch", (), {"image": IMAGES})()) > 0
