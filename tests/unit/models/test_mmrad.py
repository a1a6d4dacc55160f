"""MMRAD on a tiny SAM encoder, and on a small backbone, with random weights."""

import importlib.util

import pytest
import timm
import torch
from anomalib.engine import Engine

from anomalib_memd import Branch, Modality
from anomalib_memd.components.backbones import BackboneError
from anomalib_memd.models import MMRAD
from anomalib_memd.models.mmrad import MMRADModel, PromptedBackbone, PromptedEncoder
from tests.conftest import small_phantom
from tests.unit.models.test_trained import QUIET

needs_sam = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs the extra 'sam'")

TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 32, "image_size": 64,
    "patch_size": 8, "output_channels": 16, "window_size": 3, "global_attn_indexes": [1], "initializer_range": 0.1,
}  # fmt: skip
PAIR = {m: torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(n)) for n, m in enumerate(Modality)}


@pytest.fixture(params=[pytest.param("sam", marks=needs_sam), "resnet10t"])
def model(request):
    torch.manual_seed(0)
    sam = request.param == "sam"
    encoder = PromptedEncoder(config=TINY) if sam else PromptedBackbone(request.param, weights="random", channels=16)
    return MMRADModel(Modality.NBI, encoder, (0.5,) * 3, (0.25,) * 3).eval()


@needs_sam
def test_without_prompts_the_encoder_is_that_of_transformers():
    encoder = PromptedEncoder(config=TINY).eval()
    torch.nn.init.normal_(encoder.sam.pos_embed)
    images = torch.randn(2, 3, 64, 64)
    expected = encoder.sam(images).last_hidden_state
    torch.testing.assert_close(encoder(images, Modality.WLI), expected, atol=1e-5, rtol=1e-4)
    encoder.prompts["wli"].data.normal_()
    assert not torch.allclose(encoder(images, Modality.WLI), expected)
    torch.testing.assert_close(encoder(images, Modality.NBI), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "layers"), [("resnet10t", ["layer1", "layer3"]), ("regnetx_002", ["s1", "s2"])])
def test_without_prompts_a_backbone_is_that_of_timm_behind_a_neck(name, layers):
    encoder = PromptedBackbone(name, layers, weights="random").train()
    reference = timm.create_model(name, features_only=True)
    reference.load_state_dict(encoder.backbone.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 64)
    names = [info["module"] for info in reference.feature_info.info]
    expected = encoder.neck(reference.eval()(images)[names.index(layers[-1])])
    torch.testing.assert_close(encoder(images, Modality.WLI), expected)
    assert expected.shape[1] == encoder.channels
    first, last = encoder.prompts["wli"].values()
    assert first.shape != last.shape
    first.data.normal_()
    assert not torch.allclose(encoder(images, Modality.WLI), expected)
    torch.testing.assert_close(encoder(images, Modality.NBI), expected)


def test_a_backbone_that_takes_no_prompts_is_named():
    with pytest.raises(BackboneError, match=r"The layers of tf_efficientnet_lite0 do not simply follow each other"):
        PromptedBackbone("tf_efficientnet_lite0", ["blocks.2"], weights="random")


def test_only_prompts_decoder_and_neck_learn(model):
    model.train()
    model.loss(PAIR).backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not any(name.startswith(("encoder.sam", "encoder.backbone")) for name in learning)
    for part in ("encoder.prompts.wli", "encoder.prompts.nbi", "decoder.tokens.wli", "decoder.tokens.nbi"):
        own = {name for name, _ in model.named_parameters() if name.startswith(part)}
        assert own
        assert own <= learning
    assert {name for name, _ in model.named_parameters() if name.startswith("encoder.neck")} <= learning


def test_the_loss_is_that_of_maps_and_of_images(model):
    torch.manual_seed(3)
    found = float(model.loss(PAIR))
    torch.manual_seed(3)
    both, masks = model.draw(PAIR)
    assert masks.shape == (6, 1, 32, 48)
    assert not masks[:3].any()
    expected = 0.0
    for modality, images in both.items():
        torch.testing.assert_close(images[:3], PAIR[modality])
        image, places = (x.detach().double() for x in model.log_odds(images, modality))
        chance = places.sigmoid()
        right = torch.where(masks > 0, chance, 1 - chance)
        weight = torch.where(masks > 0, 0.25, 0.75)
        expected += float((-weight * (1 - right) ** 2 * right.log()).mean())
        expected += 1 - float((2 * (chance * masks).sum() + 1) / (chance.sum() + masks.sum() + 1))
        abnormal = masks.flatten(1).amax(1)
        told = torch.where(abnormal > 0, image.sigmoid(), 1 - image.sigmoid())
        expected -= float(told.log().mean())
    assert found == pytest.approx(expected, rel=1e-4)


def test_an_anomaly_lies_in_the_same_place_of_a_pair(model):
    both, masks = model.draw(PAIR)
    for images in both.values():
        changed = (images[3:] - images[:3]).abs().amax(1) > 1e-2  # Normalised images beyond [0, 1] are cut off.
        clipped = ((images[:3] * 0.25 + 0.5 < 0) | (images[:3] * 0.25 + 0.5 > 1)).any(1)
        assert not (changed & (masks[3:, 0] == 0) & ~clipped).any()


@torch.no_grad()
def test_a_pair_has_the_mean_of_both(model):
    wli, nbi, pair = (model.judge(branch, PAIR) for branch in (Branch.WLI, Branch.NBI, Branch.TEACHER))
    torch.testing.assert_close(pair.pred_score, (wli.pred_score + nbi.pred_score) / 2)
    assert pair.anomaly_map.shape == (3, 1, 32, 48)
    alone = model(PAIR[Modality.NBI])
    torch.testing.assert_close(alone.pred_score, nbi.pred_score)


SMALL = {"backbone": "resnet10t", "backbone_weights": "random"}


@pytest.mark.parametrize("encoder", [pytest.param({"encoder_config": TINY}, marks=needs_sam), SMALL])
def test_it_trains_and_judges_pairs(phantom_root, tmp_path, encoder):
    module = MMRAD(**encoder, image_size=(64, 64), steps=4, visualizer=False)
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    engine.fit(module, datamodule=small_phantom(phantom_root))
    (metrics,) = engine.test(module, datamodule=small_phantom(phantom_root))
    assert {"wli_image_AUROC", "nbi_image_AUROC", "teacher_image_AUROC"} <= set(metrics)
    with pytest.raises(TypeError, match="MMRAD trains on pairs: give the datamodule modality=paired"):
        engine.fit(MMRAD(**encoder, image_size=(64, 64)), datamodule=small_phantom(phantom_root, modality="wli"))


@needs_sam
def test_weights_that_cannot_be_fetched_are_named(monkeypatch):
    # The variable of the environment is read when the library is imported, which is long ago.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match=r"weights of nobody/nothing could not be loaded"):
        PromptedEncoder("nobody/nothing")


@torch.no_grad()
def test_it_is_exported_for_any_number_of_images(model):
    images = PAIR[Modality.NBI]
    traced = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    more = torch.randn(5, *images.shape[1:])
    torch.testing.assert_close(traced.module()(more), model(more))
