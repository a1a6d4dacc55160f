import numpy as np
import pytest
import torch
from anomalib.models import get_model
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.models.pooled import PooledFeaturesModel


@pytest.fixture(scope="module")
def backbone():
    return build_backbone("resnet18", ["layer1", "layer2"], pre_trained=False).eval()


def fitted(backbone, distance, **options):
    model = PooledFeaturesModel(backbone, distance, **options).eval()
    normal = torch.rand(12, 3, 32, 32)
    features = model.pool(normal)
    model.fit(features.split(5))
    return model, features.numpy()


def test_features_are_means_over_the_image(backbone):
    images = torch.rand(2, 3, 32, 32)
    maps = backbone(images)
    expected = torch.stack([torch.cat([m[i].flatten(1).mean(1) for m in maps.values()]) for i in range(2)])
    torch.testing.assert_close(PooledFeaturesModel(backbone).pool(images), expected)


def test_neighbours_are_those_of_scikit_learn(backbone):
    model, normal = fitted(backbone, "neighbours", neighbours=3)
    images = torch.rand(4, 3, 32, 32)
    scaler = StandardScaler().fit(normal)
    nearest = NearestNeighbors(n_neighbors=3).fit(scaler.transform(normal))
    distances, _ = nearest.kneighbors(scaler.transform(model.pool(images).numpy()))
    np.testing.assert_allclose(model(images).pred_score, distances.mean(1), rtol=1e-2, atol=1e-3)


def test_mahalanobis_is_that_of_scikit_learn(backbone):
    model, normal = fitted(backbone, "mahalanobis")
    images = torch.rand(4, 3, 32, 32)
    expected = np.sqrt(LedoitWolf().fit(normal).mahalanobis(model.pool(images).numpy()))
    np.testing.assert_allclose(model(images).pred_score, expected, rtol=1e-2)


def test_anomalib_finds_it_by_name_and_it_has_to_be_fitted():
    model = get_model("PooledFeatures", backbone="resnet18", pre_trained=False, layers=["layer1"])
    with pytest.raises(RuntimeError, match="no normal image yet"):
        model(torch.rand(1, 3, 32, 32))
