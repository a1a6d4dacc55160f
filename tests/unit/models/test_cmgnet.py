"""CMG-Net against slow computations of its parts."""

import math

import pytest
import torch
from anomalib.engine import Engine
from torch.nn import functional as F  # noqa: N812

from anomalib_memd import CMGNet, Segmentation
from anomalib_memd.components.sentences import EncodedText
from anomalib_memd.models.cmgnet import AxisAttention, CMGNetModel, FusionLayer, MultiAxisAttention, TextFusion
from tests.unit.models.test_trained import QUIET

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
TEXT = EncodedText(
    torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(2)),
    torch.tensor([[True, True, True], [True, False, False]]),
)


def small(text=True, **options):
    torch.manual_seed(0)
    default = EncodedText(torch.randn(1, 2, 12), torch.ones(1, 2, dtype=torch.bool)) if text else None
    return CMGNetModel(default, widths=(4, 8, 8), heads=2, **options).eval()


@pytest.mark.parametrize("axis", ["row", "column", "channel"])
def test_attention_along_an_axis_is_its_equation(axis):
    layer = AxisAttention(4, axis)
    x = torch.randn(2, 4, 3, 5)
    found = layer(x)
    query = layer.query(x)
    first, second, value = layer.first(query), layer.second(query), layer.value(x)
    for image in range(2):
        if axis == "channel":
            lines = [(slice(None), slice(None))]
        else:
            lines = [(row, slice(None)) for row in range(3)] if axis == "row" else [(slice(None), c) for c in range(5)]
        for rows, columns in lines:
            a, b, v = (y[image][:, rows, columns].flatten(1) for y in (first, second, value))
            if axis != "channel":  # Vectors are locations; else they are channels.
                a, b, v = a.T, b.T, v.T
            expected = torch.empty_like(v)
            for i in range(len(a)):
                scores = torch.stack([a[i] @ b[j] / math.sqrt(a.shape[1]) for j in range(len(b))])
                weights = scores.exp() / scores.exp().sum()
                expected[i] = sum(weights[j] * v[j] for j in range(len(v)))
            got = found[image][:, rows, columns].flatten(1)
            torch.testing.assert_close(got if axis == "channel" else got.T, expected, atol=1e-5, rtol=1e-4)


def test_axes_are_joined_and_added():
    attention = MultiAxisAttention(4)
    x = torch.randn(2, 4, 3, 5)
    joined = torch.cat([axis(x) for axis in attention.axes], dim=1)
    assert [axis.axis for axis in attention.axes] == ["row", "column", "channel"]
    torch.testing.assert_close(attention(x), x + attention.join(joined))


@pytest.mark.parametrize("gated", [True, False])
def test_the_text_asks_the_image(gated):
    layer = FusionLayer(8, 2, gated)
    places = torch.randn(2, 5, 8)
    text = EncodedText(torch.randn(2, 3, 8), TEXT.mask)
    found = layer(places, text)
    for image in range(2):
        normed = layer.norm(places[image])
        key, value = layer.key_value(normed).chunk(2, dim=-1)
        words = text.tokens[image][text.mask[image]]
        answers = []
        for query in layer.query(words):
            heads = []
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                weights = torch.stack([query[part] @ k[part] / 2 for k in key]).softmax(0)
                heads.append(sum(w * v[part] for w, v in zip(weights, value, strict=True)))
            answers.append(torch.cat(heads))
        attended = torch.stack(answers).mean(0)
        for place in range(5):
            own = places[image, place]
            if gated:
                alpha = layer.gate.linear(torch.cat([attended, own, words.mean(0)])).sigmoid()
                fused = alpha * own + (1 - alpha) * attended
            else:
                fused = (own + attended) / 2
            torch.testing.assert_close(found[image, place], fused + layer.feed(fused), atol=1e-5, rtol=1e-4)


def test_without_fusion_the_mean_word_is_added():
    fusion = TextFusion(8, 12, layers=0, heads=2, gated=True)
    x = torch.randn(2, 8, 3, 5)
    words = torch.stack([fusion.project(TEXT.tokens[i][TEXT.mask[i]]).mean(0) for i in range(2)])
    torch.testing.assert_close(fusion(x, TEXT), x + words[:, :, None, None])
    assert sum(p.numel() for p in fusion.parameters()) == 12 * 8 + 8


def test_the_loss_is_half_dice_and_half_cross_entropy():
    model = small()
    masks = torch.zeros(2, 32, 48)
    masks[0, 4:12, 6:20] = 1
    found = float(model.loss(IMAGES, masks, TEXT))
    odds = model.log_odds(IMAGES, TEXT).detach().double()[:, 0]
    chance = odds.sigmoid()
    entropy = -float(torch.where(masks > 0, F.logsigmoid(odds), F.logsigmoid(-odds)).mean())
    dice = 1 - float((2 * (chance * masks).sum() + 1) / (chance.sum() + masks.sum() + 1))
    assert found == pytest.approx((entropy + dice) / 2, rel=1e-5)


def test_text_matters_where_there_is_text():
    other = EncodedText(TEXT.tokens.flip(0), TEXT.mask)
    model, without = small(), small(text=False)
    assert not torch.allclose(model.log_odds(IMAGES, TEXT), model.log_odds(IMAGES, other))
    torch.testing.assert_close(without.log_odds(IMAGES, TEXT), without.log_odds(IMAGES))


def test_an_image_without_a_text_has_the_default_one():
    model = small()
    default = EncodedText(model.default_tokens.expand(2, -1, -1), model.default_mask.expand(2, -1))
    torch.testing.assert_close(model.log_odds(IMAGES), model.log_odds(IMAGES, default))


def test_each_part_can_be_switched_off():
    def count(**options):
        return sum(p.numel() for p in small(**options).parameters())

    whole = count()
    assert count(text=False, attention=False) < count(text=False) < whole
    assert count(fusion=False) < count(gated=False) < whole
    plain = small(text=False, attention=False)
    torch.testing.assert_close(plain.log_odds(IMAGES), plain.unet(IMAGES))


def test_any_size_is_segmented():
    found = small()(torch.randn(2, 3, 37, 51))
    assert found.anomaly_map.shape == (2, 1, 37, 51)
    assert torch.equal(found.pred_mask, found.anomaly_map > 0.5)
    torch.testing.assert_close(found.pred_score, found.anomaly_map.flatten(1).max(1).values)
    assert torch.equal(found.pred_label, found.pred_score > 0.5)


@pytest.mark.parametrize("options", [{"levels": 4}, {"levels": 0}])
def test_levels_that_there_are_not_are_an_error(options):
    with pytest.raises(ValueError, match="levels"):
        small(**options)


def test_heads_that_do_not_divide_the_widths_are_an_error():
    with pytest.raises(ValueError, match="heads=3"):
        CMGNetModel(None, widths=(4, 8, 8), heads=3)


def test_masks_are_needed(phantom_root, tmp_path):
    root = next(phantom_root.iterdir()) / "wli"
    data = Segmentation(root=root, train_batch_size=4, num_workers=0)
    module = CMGNet(text=False, widths=[4, 8], levels=1, heads=2, image_size=(32, 32), epochs=1, visualizer=False)
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    engine.fit(module, datamodule=data)
    (metrics,) = engine.test(module, datamodule=data)
    names = ("Dice", "IoU", "Precision", "Recall", "F1Score")
    assert {f"pixel_{name}" for name in names} <= set(metrics)
    batch = next(iter(data.train_dataloader()))
    batch.gt_mask = None
    with pytest.raises(ValueError, match="Segmentation"):
        module.training_step(batch)
