import resource

import pytest
import torch
from anomalib.models.components import TimmFeatureExtractor

from anomalib_memd.benchmark.feature_store import FeatureStore, shared_features


@pytest.fixture(scope="module")
def extractor():
    torch.manual_seed(0)
    return TimmFeatureExtractor("resnet18", ["layer1", "layer2"], pre_trained=False).eval()


def test_stored_features_are_those_of_the_backbone_in_half_precision(extractor, tmp_path):
    images = torch.rand(3, 3, 32, 32)
    truth = extractor(images)
    store = FeatureStore(tmp_path)
    with shared_features(store):
        first, second = extractor(images), extractor(images.flip(0))
    assert (store.misses, store.hits) == (3, 3)
    for layer, feature in truth.items():
        torch.testing.assert_close(first[layer], feature, rtol=1e-3, atol=1e-3)
        assert torch.equal(first[layer], second[layer].flip(0))
        assert first[layer].is_contiguous()
        assert second[layer].is_contiguous()


def test_every_layer_is_found_by_itself(extractor, tmp_path):
    store, images = FeatureStore(tmp_path), torch.rand(2, 3, 32, 32)
    deeper = TimmFeatureExtractor("resnet18", ["layer2"], pre_trained=False)
    deeper.feature_extractor.load_state_dict(extractor.feature_extractor.state_dict())
    with shared_features(store):
        extractor(images)
        deeper(images)
    assert store.hits == 2


def test_other_weights_are_another_backbone(extractor, tmp_path):
    store, images = FeatureStore(tmp_path), torch.rand(1, 3, 32, 32)
    other = TimmFeatureExtractor("resnet18", ["layer1", "layer2"], pre_trained=False)
    with shared_features(store):
        extractor(images)
        other(images)
    assert store.hits == 0


def test_equal_weights_are_one_backbone_under_any_tag(extractor, tmp_path):
    store, images = FeatureStore(tmp_path), torch.rand(1, 3, 32, 32)
    tagged = TimmFeatureExtractor("resnet18.tv_in1k", ["layer1", "layer2"], pre_trained=False)
    tagged.feature_extractor.load_state_dict(extractor.feature_extractor.state_dict())
    with shared_features(store):
        extractor(images)
        tagged(images)
    assert store.hits == 1


def test_a_full_disk_names_the_way_out_and_leaves_nothing(extractor, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with shared_features(FeatureStore(tmp_path)), pytest.raises(OSError, match="on a larger disk"):
            extractor(torch.rand(1, 3, 64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_network_that_learns_is_left_alone(tmp_path):
    student = TimmFeatureExtractor("resnet18", ["layer1"], pre_trained=False, requires_grad=True)
    store = FeatureStore(tmp_path)
    with shared_features(store):
        assert student(torch.rand(2, 3, 32, 32))["layer1"].requires_grad
    assert store.hits == store.misses == 0


def test_extractors_are_themselves_again_afterwards(extractor, tmp_path):
    before = TimmFeatureExtractor.forward
    with pytest.raises(RuntimeError), shared_features(FeatureStore(tmp_path)):
        raise RuntimeError
    assert TimmFeatureExtractor.forward is before
