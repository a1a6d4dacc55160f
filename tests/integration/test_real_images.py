"""Real endoscopic images and real weights, where they are at hand."""

import numpy as np
import onnxruntime
import openvino
import pandas as pd
import pytest
import torch
from anomalib import TaskType
from anomalib.deploy import CompressionType
from torchvision.transforms.v2 import Resize

from anomalib_memd import MEMD, Kvasir, SpectralNBI
from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.components.embedding import FeatureEmbedding
from anomalib_memd.components.feature_cache import FeatureCache
from anomalib_memd.components.negatives import NegativePool
from anomalib_memd.components.training_features import FeatureSet
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.data.reading import read_image
from anomalib_memd.deployment import AS_EXPORTED
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models.memd.cross_fitting import cross_fit
from tests.conftest import SHARED, needs_shared

pytestmark = needs_shared


@pytest.mark.parametrize(
    ("name", "sizes", "task"),
    [
        ("kvasir-colon", (530, 144, 377), TaskType.SEGMENTATION),
        ("gastrovision-colon", (799, 180, 300), TaskType.CLASSIFICATION),
        ("gastrovision-colon-dev", (799, 180, 500), TaskType.CLASSIFICATION),
        ("wce-bleeding", (600, 160, 400), TaskType.SEGMENTATION),
    ],
)
def test_split_is_read_as_documented(name, sizes, task):
    datamodule = Kvasir(SHARED / "data" / name, num_workers=0)
    datamodule.prepare_data()
    datamodule.setup()
    datasets = (datamodule.train_data, datamodule.val_data, datamodule.test_data)
    assert tuple(map(len, datasets)) == sizes
    assert datamodule.test_data.task is task
    batch = next(iter(datamodule.val_dataloader()))
    assert batch.image.shape == batch.nbi_image.shape
    assert (batch.gt_mask is not None) == (task is TaskType.SEGMENTATION)


def test_white_light_is_redder_than_narrow_band():
    datamodule = Kvasir(SHARED / "data" / "kvasir-colon", num_workers=0)
    datamodule.setup()
    batch = next(iter(datamodule.test_dataloader()))
    redness = [x[:, 0].mean() / x[:, 1:].mean() for x in (batch.image, batch.nbi_image)]
    assert redness[0] > 1.5 > redness[1]


def test_local_weights_are_those_of_a_trained_network():
    """Features of a real image tell it from noise by far, as a random network's would not."""
    datamodule = Kvasir(SHARED / "data" / "kvasir-colon", num_workers=0, eval_batch_size=4)
    datamodule.setup()
    weights = SHARED / "weights" / "resnet50.safetensors"
    backbone = build_backbone("resnet50.tv_in1k", ["layer2", "layer3"], weights=weights)
    image = next(iter(datamodule.test_dataloader())).image
    with torch.no_grad():
        real, noise = (FeatureEmbedding(backbone).eval()(x).map.mean((-2, -1)) for x in (image, torch.rand_like(image)))
    between = torch.cdist(real, noise).min()
    assert torch.isfinite(real).all()
    assert between > torch.pdist(real).max()


@pytest.fixture(scope="module")
def solved():
    """MEMD on real weights, solved for and calibrated on a few real images, without an epoch of training."""
    torch.manual_seed(0)
    weights = SHARED / "weights" / "resnet50.safetensors"
    model = MEMD(backbone_weights=weights, visualizer=False).eval()
    root = SHARED / "data" / "kvasir-colon"
    datamodule = Kvasir(root, num_workers=0)
    datamodule.setup()
    dataset = datamodule.train_data
    dataset.samples = dataset.samples.iloc[::17].reset_index(drop=True)
    dataset.augmentations = Resize(list(model.input_size), antialias=True)
    pool = NegativePool(dataset, model.features.synthesis, 1, model.features.normalize)
    cache = FeatureCache(model.model.embedding, [pool], model.model.embedding.digest())
    cache.fill(torch.device("cpu"))
    cross_fit(model, FeatureSet(cache, cache.rows(0), model.device), 0.1)
    cache.close()
    model.trained = set(Stage)
    return model


@pytest.mark.parametrize("modality", [Modality.NBI])
@pytest.mark.slow
def test_exports_agree_with_pytorch_on_real_images(solved, modality, tmp_path):
    rows = pd.read_csv(SHARED / "data" / "kvasir-colon" / "split.csv")
    names = rows[rows.split == "test"].sample(16, random_state=0).image
    images = torch.stack([read_image(SHARED / "data" / "kvasir-colon" / n).as_subclass(torch.Tensor) for n in names])
    if modality is Modality.NBI:
        images = SpectralNBI()(images)
    detector = solved.deployed(modality)
    core = openvino.Core()
    full = core.compile_model(detector.to_openvino(tmp_path), "CPU", AS_EXPORTED)
    halved = detector.to_openvino(tmp_path / "half", compression_type=CompressionType.FP16)
    half = core.compile_model(halved, "CPU", AS_EXPORTED)
    onnx = onnxruntime.InferenceSession(detector.to_onnx(tmp_path))
    script = torch.jit.load(detector.to_torchscript(tmp_path))
    outputs = ["pred_score", "anomaly_map"]
    worst = dict.fromkeys(("openvino", "half", "onnx", "script"), (0.0, 0.0))
    scores = []
    for part in images.split(8):
        with torch.inference_mode():
            seen = solved.pre_processor.transform(part)
            raw = solved.model.judge(Branch(modality), {modality: solved.model.embedding(seen)}, seen.shape[-2:])
            expected = solved.post_processor.branch(modality)(raw)
            found = {"script": [script(part)[name].numpy() for name in outputs]}
        found |= {"onnx": onnx.run(outputs, {"input": part.numpy()})}
        found |= {n: [m(part.numpy())[o] for o in outputs] for n, m in {"openvino": full, "half": half}.items()}
        scores.append(expected.pred_score)
        for name, (score, anomaly_map) in found.items():
            worst[name] = (
                max(worst[name][0], np.abs(score - expected.pred_score.numpy()).max()),
                max(worst[name][1], np.abs(anomaly_map - expected.anomaly_map.numpy()).max()),
            )
    assert torch.cat(scores).std() > 0.05
    for name, (score, anomaly_map) in worst.items():
        assert score <= (5e-3 if name == "half" else 1e-3)
        assert anomaly_map <= 1e-2
