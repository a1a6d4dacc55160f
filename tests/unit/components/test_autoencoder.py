"""Small networks: the derivative by hand, sizes, and what stays while others learn."""

import pytest
import torch
from torch import nn

from anomalib_memd.components.autoencoder import ConvAutoEncoder
from anomalib_memd.components.backbones import BackboneError
from anomalib_memd.components.reverse import LAYERS, LearningEncoder, build_bottleneck, build_decoder
from anomalib_memd.components.unet import UNet


def test_the_derivative_by_hand_is_that_of_autograd():
    network = ConvAutoEncoder((32, 48)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, -2, 2)
            nn.init.normal_(module.bias)
    images = torch.randn(3, 3, 32, 48, requires_grad=True)
    error = (images - network(images)).abs()
    (expected,) = torch.autograd.grad(error.mean((1, 2, 3)).sum(), images)
    with torch.no_grad():
        found_error, found = network.error_and_gradient(images)
    torch.testing.assert_close(found_error, error.detach())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"multiples of 16 pixels\. \(50, 64\) is none"):
        ConvAutoEncoder((50, 64))


@pytest.mark.parametrize("size", [(16, 24), (40, 8)])
def test_a_u_shaped_network_keeps_the_grid_and_learns_everywhere(size):
    network = UNet(4, 2, (4, 6, 8, 10))
    made = network(torch.randn(2, 4, *size))
    assert made.shape == (2, 2, *size)
    made.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)


def test_the_mirror_has_the_maps_of_the_backbone():
    encoder = LearningEncoder("resnet18", (*LAYERS, "layer4"), "random")
    *maps, deepest = encoder(torch.randn(2, 3, 64, 64))
    for given in (deepest, build_bottleneck("resnet18")(maps)):
        assert [m.shape for m in build_decoder("resnet18")(given)] == [m.shape for m in maps]


def test_training_moves_weights_of_an_encoder_and_no_statistics():
    encoder = LearningEncoder("resnet18", LAYERS, "random").train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    torch.stack([m.sum() for m in encoder(torch.randn(2, 3, 64, 64))]).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())
    assert encoder.extractor.feature_extractor.conv1.weight.grad.abs().sum() > 0


def test_only_resnets_have_a_mirror():
    with pytest.raises(BackboneError, match="convnext_atto has no mirrored decoder; take a ResNet"):
        build_decoder("convnext_atto")
