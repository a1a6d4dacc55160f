"""MVFA, on a tiny CLIP with random weights and on a backbone of timm beside a tiny sentence encoder."""

import importlib.util
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine
from torch.nn import functional as F  # noqa: N812

from anomalib_memd import MVFA, Branch, FewShot, Modality
from anomalib_memd.components.backbones import BackboneError, WeightsNotFetchedError
from anomalib_memd.models import TextSimilarity
from anomalib_memd.models.mvfa import (
    Adapter,
    ClipTower,
    Memory,
    MVFAModel,
    PromptError,
    TimmTower,
    Use,
    read_prompts,
    towers,
)
from tests.conftest import small_phantom
from tests.unit.models.test_trained import QUIET

pytestmark = pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs the extra 'language'")

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 8, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}
PROMPTS = {"normal": ["normal colon", "healthy colon"], "abnormal": ["a polyp", "bleeding", "a lesion"]}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return ClipTower("tiny", config=TINY, image_size=(32, 32))


@pytest.fixture
def model(tower):
    torch.manual_seed(1)
    return MVFAModel(tower, PROMPTS)


class FakeEncoder:
    """Sentences as vectors of random numbers."""

    width = 12

    def __init__(self, name):
        self.name = name

    def __call__(self, sentences):
        rows = [torch.randn(1, 12, generator=torch.Generator().manual_seed(len(text))) for text in sentences]
        return _Encoded(torch.stack(rows))


class _Encoded:
    def __init__(self, tokens):
        self.tokens = tokens

    def mean(self):
        return self.tokens[:, 0]


@pytest.fixture
def timm_tower(monkeypatch):
    monkeypatch.setattr(towers, "SentenceEncoder", FakeEncoder)
    torch.manual_seed(0)
    return TimmTower("resnet18", ["layer1", "layer2", "layer3", "layer4"], "random")


def test_an_adapter_is_its_two_layers():
    adapter = Adapter(6, 4, last=False)
    tokens = torch.randn(2, 5, 6)
    aligned, back = adapter(tokens)
    for image in range(2):
        for place in range(5):
            inner = F.leaky_relu(adapter.project.weight @ tokens[image, place])
            torch.testing.assert_close(aligned[image, place], inner)
            torch.testing.assert_close(back[image, place], F.leaky_relu(adapter.back.weight @ inner))
    assert Adapter(6, 4, last=True)(tokens)[1] is None


def test_levels_end_at_quarters_and_later_layers_see_what_was_mixed(model, tower):
    assert tower.ends == [2, 4, 6, 8]
    found = model.tokens(IMAGES)
    tokens = tower.visual._embeds(IMAGES)
    for level in range(4):
        for block in tower.visual.transformer.resblocks[2 * level : 2 * level + 2]:
            tokens = block(tokens)
        outputs = {use: model.adapters[use.value][level](tokens) for use in Use}
        for use, (aligned, _) in outputs.items():
            expected = aligned[:, 1:] / aligned[:, 1:].norm(dim=-1, keepdim=True)
            torch.testing.assert_close(found[use][level], expected)
        if level < 3:
            tokens = 0.8 * tokens + 0.1 * outputs[Use.PLACE][1] + 0.1 * outputs[Use.IMAGE][1]


def test_without_a_share_the_encoder_is_that_of_clip(tower):
    seen = []
    tower(IMAGES, lambda level, tokens, prefix: seen.append(tokens[:, prefix:]) or tokens)
    expected = tower.visual.forward_intermediates(IMAGES, indices=[1, 3, 5, 7], output_fmt="NLC")
    for ours, theirs in zip(seen, expected["image_intermediates"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tower.whole(IMAGES), expected["image_features"], atol=1e-4, rtol=1e-3)


def test_text_is_the_mean_of_its_sentences(model, tower):
    for row, state in enumerate(("normal", "abnormal")):
        vectors = tower.embed(PROMPTS[state])
        mean = (vectors / vectors.norm(dim=1, keepdim=True)).mean(0)
        torch.testing.assert_close(model.text()[row], mean / mean.norm())


def test_chances_are_the_softmax_of_both_cosines(model):
    tokens = F.normalize(torch.randn(2, 5, 24), dim=-1)
    chances = (100 * tokens @ model.text().T).softmax(-1)[..., 1]
    torch.testing.assert_close(model.log_odds(tokens).sigmoid(), chances, atol=1e-5, rtol=1e-4)


def test_the_loss_is_that_of_images_and_of_places_that_have_masks(model):
    labels = torch.tensor([0, 1, 1])
    masks = torch.zeros(3, 32, 32)
    masks[1, 4:20, 8:16] = 1  # The third is abnormal and has no mask.
    found = float(model.loss(IMAGES, labels, masks))
    tokens = {use: [x.detach().double() for x in parts] for use, parts in model.tokens(IMAGES).items()}
    text = model.text().double()
    expected = 0.0
    for level in range(4):
        image = (100 * tokens[Use.IMAGE][level] @ text.T).softmax(-1)[..., 1].mean(1)
        expected -= float(torch.where(labels > 0, image, 1 - image).clamp(1e-6, 1 - 1e-6).log().mean())
        odds = 100 * tokens[Use.PLACE][level] @ (text[1] - text[0])
        odds = F.interpolate(odds.view(3, 1, 4, 4), (32, 32), mode="bilinear")[:2, 0]
        chance, target = odds.sigmoid(), masks[:2].double()
        right = torch.where(target > 0, chance, 1 - chance)
        weight = torch.where(target > 0, 0.25, 0.75)
        logs = torch.where(target > 0, F.logsigmoid(odds), F.logsigmoid(-odds))
        expected += float((-weight * (1 - right) ** 2 * logs).mean())
        expected += 1 - float((2 * (chance * target).sum() + 1) / (chance.sum() + target.sum() + 1))
    assert found == pytest.approx(expected, rel=1e-3)
    without = float(model.loss(IMAGES, labels, None))
    assert 0 < without < found


def test_only_adapters_learn(model):
    model.train()
    model.loss(IMAGES, torch.tensor([0, 1, 1]), torch.ones(3, 32, 32)).backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {name for name, _ in model.named_parameters() if name.startswith("adapters.")}
    assert not any(module.training for module in model.tower.modules())


def test_the_memory_is_one_minus_the_largest_cosine():
    memory = Memory(4)
    bank, tokens = (F.normalize(torch.randn(*shape, 4), dim=-1) for shape in ((7,), (2, 3)))
    assert not memory(tokens).any()
    memory.fit(bank)
    expected = [[1 - max(float(token @ kept) for kept in bank) for token in image] for image in tokens]
    torch.testing.assert_close(memory(tokens), torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_what_is_remembered_scores_lower_than_what_is_not(model):
    with torch.no_grad():
        model.remember([IMAGES[:1]])
        known = model(IMAGES)
        model.remember([IMAGES[2:]])
        other = model(IMAGES)
    assert known.pred_score[0] < other.pred_score[0]
    assert known.pred_score[2] > other.pred_score[2]
    assert (known.anomaly_map[0] <= other.anomaly_map[0] + 1e-6).all()


def test_the_score_is_the_weighted_sum_of_both_branches(tower):
    torch.manual_seed(1)
    parts = {}
    for weights in ((1.0, 0.0), (0.0, 1.0), (0.3, 0.7)):
        torch.manual_seed(1)
        model = MVFAModel(tower, PROMPTS, zero_shot_weight=weights[0], few_shot_weight=weights[1])
        with torch.no_grad():
            model.remember([IMAGES[:1]])
            parts[weights] = model(IMAGES)
    for name in ("pred_score", "anomaly_map"):
        zero, few, both = (getattr(parts[w], name) for w in parts)
        torch.testing.assert_close(both, 0.3 * zero + 0.7 * few, atol=1e-6, rtol=1e-5)


def test_a_pair_has_the_mean_of_its_views(model):
    views = {Modality.WLI: IMAGES, Modality.NBI: IMAGES.flip(-1)}
    with torch.no_grad():
        wli, nbi, both = (model.judge(branch, views) for branch in Branch)
    torch.testing.assert_close(both.pred_score, (wli.pred_score + nbi.pred_score) / 2)
    torch.testing.assert_close(both.anomaly_map, (wli.anomaly_map + nbi.anomaly_map) / 2)


def test_a_backbone_of_timm_stands_in_place_of_clip(timm_tower):
    model = MVFAModel(timm_tower, PROMPTS, text_width=8)
    images = torch.randn(2, 3, 160, 96)
    found = model.tokens(images)
    # The finest map, 40 x 24, is averaged to 20 x 12.
    assert [x.shape[1] for x in found[Use.PLACE]] == [240, 240, 60, 15]
    output = model(images)
    assert output.anomaly_map.shape == (2, 1, 160, 96)
    model.loss(images, torch.tensor([0, 1]), None).backward()
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {"adapters", "align"}


def test_it_learns_pairs_few_shot_and_keeps_what_is_normal(phantom_root, tmp_path):
    root = next(phantom_root.iterdir())
    data = FewShot(root=root / "wli", nbi_root=root / "nbi", shots=2, train_batch_size=4, num_workers=0)
    module = MVFA(clip_config=TINY, image_size=(32, 32), epochs=2, visualizer=False)
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    engine.fit(module, datamodule=data)
    # 2 normal pairs of 16 places each.
    assert len(module.model.memories["image"][0].bank) == 2 * 2 * 16
    (metrics,) = engine.test(module, datamodule=data)
    assert {"wli_image_AUROC", "nbi_image_AUROC", "teacher_image_AUROC", "teacher_pixel_AUROC"} <= set(metrics)
    assert (Path(engine.trainer.default_root_dir) / "training.csv").exists()


def test_zero_shot_keeps_no_image(phantom_root, tmp_path):
    root = next(phantom_root.iterdir()) / "wli"
    data = FewShot(root=root, shots=2, modality="wli", train_batch_size=4, num_workers=0)
    module = MVFA(clip_config=TINY, image_size=(32, 32), epochs=1, few_shot_weight=0.0, visualizer=False)
    Engine(default_root_dir=tmp_path, **QUIET).fit(module, datamodule=data)
    assert all(not len(memory.bank) for memories in module.model.memories.values() for memory in memories)


def test_normal_images_alone_are_an_error_that_names_the_way_out(phantom_root, tmp_path):
    module = MVFA(clip_config=TINY, image_size=(32, 32), epochs=1)
    with pytest.raises(ValueError, match="FewShot"):
        Engine(default_root_dir=tmp_path, **QUIET).fit(module, datamodule=small_phantom(phantom_root, modality="wli"))


def test_similarity_is_that_of_clip(phantom_root, tmp_path):
    module = TextSimilarity(clip_config=TINY, image_size=(32, 32)).eval()
    vectors = F.normalize(module.model.tower.whole(IMAGES), dim=1)
    chances = (100 * vectors @ module.model.text.T).softmax(1)[:, 1]
    torch.testing.assert_close(module.model(IMAGES).pred_score, chances, atol=1e-5, rtol=1e-4)
    data = FewShot(root=next(phantom_root.iterdir()) / "wli", shots=2, modality="wli", num_workers=0)
    (metrics,) = Engine(default_root_dir=tmp_path, **QUIET).train(module, datamodule=data)
    assert 0 <= metrics["image_AUROC"] <= 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"name": "ViT-X"}, "no model 'ViT-X'"),
        ({"name": "ViT-B-32", "pretrained": "nobody"}, "no weights 'nobody'.*openai"),
        ({"name": "tiny", "config": TINY | {"vision_cfg": TINY["vision_cfg"] | {"layers": 3}}}, "vision transformer"),
        ({"name": "tiny", "config": TINY | {"vision_cfg": RESNET}}, "take a ViT"),
    ],
)
def test_what_is_no_vision_transformer_of_clip_is_an_error(options, what):
    with pytest.raises(BackboneError, match=what):
        ClipTower(**options)


def test_weights_that_cannot_be_fetched_are_asked_for_once_they_are_needed(monkeypatch, tmp_path):
    import open_clip  # noqa: PLC0415
    from open_clip.model import CLIP  # noqa: PLC0415

    def create(name, pretrained=None, **options):
        if pretrained is not None:
            msg = "no network"
            raise OSError(msg)
        return CLIP(**TINY)

    monkeypatch.setattr(open_clip, "create_model", create)
    module = MVFA(image_size=(32, 32))
    with pytest.raises(WeightsNotFetchedError, match="pretrained=FILE"):
        module.on_fit_start()
    with pytest.raises(WeightsNotFetchedError):
        module.on_test_start()
    module.on_load_checkpoint({"state_dict": {}})
    module.on_test_start()  # A checkpoint has brought them.


def test_four_levels_are_needed():
    with pytest.raises(BackboneError, match="4 levels"):
        TimmTower("resnet18", ["layer1"], "random")


def test_prompts_are_organs_in_states_in_templates(tmp_path):
    path = tmp_path / "prompts.yaml"
    path.write_text(
        "organs: [colon, cecum]\nnormal: ['normal {organ}', clean]\nabnormal: [polyp]\ntemplates: ['a {state}']"
    )
    assert read_prompts(path) == {
        "normal": ["a normal colon", "a clean", "a normal cecum"],
        "abnormal": ["a polyp"],
    }
    default = read_prompts()
    assert all("{" not in text for texts in default.values() for text in texts)
    assert not set(default["normal"]) & set(default["abnormal"])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("organs: [colon]", "under 'normal'"),
        ("- colon", "under 'organs'"),
        ("organs: [colon]\nnormal: [5]\nabnormal: [a]\ntemplates: ['{state}']", "under 'normal'"),
        ("organs: [colon]\nnormal: [a]\nabnormal: [b]\ntemplates: [c]", "does not name"),
        ("organs: [", "no readable"),
    ],
)
def test_prompts_that_are_none_are_an_error_that_names_the_file(tmp_path, content, what):
    path = tmp_path / "prompts.yaml"
    path.write_text(content)
    with pytest.raises(PromptError, match=f"prompts.yaml.*{what}"):
        read_prompts(path)
