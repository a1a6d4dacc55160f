"""The linear probe."""

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from anomalib_memd import FewShot, LinearProbe
from tests.conftest import small_phantom
from tests.unit.models.test_trained import QUIET

SMALL = {"backbone": "resnet18", "layers": ["layer1", "layer2"], "backbone_weights": "random", "visualizer": False}


def test_it_is_a_logistic_regression_on_standardised_features():
    model = LinearProbe(**SMALL).model
    features = torch.randn(20, 192) * torch.rand(192) + torch.randn(192)
    labels = (torch.arange(20) % 3 == 0).long()
    model.fit(features, labels)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000))
    reference.fit(features.double().numpy(), labels.numpy())
    expected = reference.predict_proba(features.double().numpy())[:, 1]
    np.testing.assert_allclose((features @ model.weight + model.bias).sigmoid(), expected, atol=1e-3)


def test_one_kind_of_label_is_an_error():
    with pytest.raises(ValueError, match="FewShot"):
        LinearProbe(**SMALL).model.fit(torch.randn(4, 192), torch.zeros(4))


def test_it_trains_on_a_few_images(phantom_root, tmp_path):
    root = next(phantom_root.iterdir()) / "wli"
    data = FewShot(root=root, shots=2, modality="wli", train_batch_size=4, num_workers=0)
    module = LinearProbe(**SMALL)
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    engine.fit(module, datamodule=data)
    frames = torch.stack([item.image.as_subclass(torch.Tensor) for item in data.train_data])
    module.eval()
    with torch.no_grad():
        scores = module.model(module.pre_processor.transform(frames)).pred_score
    labels = torch.tensor(data.train_data.samples.label_index.to_numpy())
    assert scores[labels == 1].min() > scores[labels == 0].max()


def test_normal_images_alone_are_an_error(phantom_root, tmp_path):
    data = small_phantom(phantom_root, modality="wli")
    with pytest.raises(ValueError, match="FewShot"):
        Engine(default_root_dir=tmp_path, **QUIET).fit(LinearProbe(**SMALL), datamodule=data)
