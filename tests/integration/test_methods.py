"""Every other method of the field: trains on the phantom, tells its polyps from normal frames, and is exported."""

import logging

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.engine import Engine
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F  # noqa: N812

from anomalib_memd import Phantom, models
from anomalib_memd.deployment import AS_EXPORTED
from tests.conftest import start

pytestmark = pytest.mark.slow

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
RESNET = {"backbone": "resnet18", "backbone_weights": "random", "image_size": (64, 64)}
LITE = {"backbone": "tf_efficientnet_lite0", "backbone_weights": "package", "image_size": (96, 96)}
SMALL = {"image_size": (64, 64)}
# Steps and rates are those of a short training on 32 frames, not the published ones.
METHODS = {
    "EDC": {**RESNET, "steps": 60, "lr": 1e-3, "encoder_lr": 1e-4},
    "SCRD4AD": {**RESNET, "steps": 200, "lr": 2e-3},
    "ReContrast": {**RESNET, "steps": 60},
    "SkipTS": {**RESNET, "steps": 60},
    "MultiresolutionKD": {**LITE, "layers": ["blocks.1", "blocks.2", "blocks.4"], "steps": 60},
    "FeatureAutoEncoder": {
        **LITE, "layers": ["blocks.1", "blocks.2", "blocks.4"], "distance": "mse", "steps": 100, "lr": 1e-3,
    },
    "SimpleNet": {
        **LITE, "layers": ["blocks.1", "blocks.2"], "noise": 0.5, "steps": 100, "lr": 1e-3, "adaptor_lr": 1e-3,
    },
    "PANDA": {**LITE, "layer": "blocks.4", "steps": 20},
    "MeanShifted": {**LITE, "layer": "blocks.4", "steps": 10},
    "CutPaste": {**LITE, "layer": "blocks.4", "steps": 40},
    "CMP": {**LITE, "layer": "blocks.4", "steps": 100, "lr": 3e-4},
    "AutoEncoder": {**SMALL, "steps": 200},
    "AutoEncoder denoising": {**SMALL, "kind": "denoising", "steps": 60},
    "AutoEncoder memory": {**SMALL, "kind": "memory", "steps": 200},
    "AutoEncoder variational": {**SMALL, "kind": "variational", "steps": 200},
    "DDAD": {**SMALL, "steps": 200},
    "D2UE": {**SMALL, "steps": 200, "lr": 1e-3},
    "FAnoGAN": {**SMALL, "steps": 200, "encoder_lr": 1e-3},
    "ForeignPatch nsa": {**SMALL, "kind": "nsa", "steps": 100, "lr": 3e-3},
}  # fmt: skip
BY_MAP = {"CMP", "D2UE"}
"""After so short a training these tell by the map alone where a polyp is, not yet which image has one."""


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    data = Phantom(
        tmp_path_factory.mktemp("phantom"), image_size=64, train=32, val=8, test=32, train_batch_size=16,
        num_workers=0, modality="wli",
    )  # fmt: skip
    data.prepare_data()
    data.setup()
    # As they are: training a method lets the datamodule resize them.
    return data, list(data.test_data)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_tells_polyps_from_normal_frames_and_is_exported(name, phantom, tmp_path):
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = getattr(models, name.split()[0])(**METHODS[name], visualizer=False, evaluator=False)
    data, items = phantom
    Engine(default_root_dir=tmp_path, limit_val_batches=0, **QUIET).fit(model, datamodule=data)
    frames = torch.stack([item.image.as_subclass(torch.Tensor) for item in items])
    model.eval()
    model.post_processor = None
    with torch.inference_mode():
        found = model(frames)
    if name in BY_MAP:
        masks = torch.stack([item.gt_mask.as_subclass(torch.Tensor) for item in items]).float()[:, None]
        maps = F.interpolate(found.anomaly_map, masks.shape[-2:], mode="area")
        assert roc_auc_score(masks.flatten() > 0, maps.flatten()) > 0.65
    else:
        assert roc_auc_score([int(item.gt_label) for item in items], found.pred_score.flatten()) > 0.65
    # Four frames, as each method is exported for the batch and the size that it is given.
    exported = frames[:4]
    for path in (
        model.to_onnx(tmp_path, input_size=(64, 64)),
        model.to_openvino(tmp_path, input_size=(64, 64)),
    ):
        outputs = _run(path, exported.numpy())
        for output, expected in zip(outputs, [x for x in found if x is not None], strict=True):
            scale = max(1.0, float(expected.abs().max()))
            np.testing.assert_allclose(output.reshape(-1), expected[:4].reshape(-1), atol=2e-3 * scale)


def _run(path, images):
    """Score and, if there is one, map of an exported file."""
    if str(path).endswith(".onnx"):
        session = onnxruntime.InferenceSession(path)
        return session.run(None, {session.get_inputs()[0].name: images})
    network = openvino.Core().compile_model(path, "CPU", AS_EXPORTED)
    return list(network(images).values())


def test_a_method_is_trained_by_the_command_line_of_anomalib(tmp_path):
    arguments = (
        "train --model anomalib_memd.EDC --model.backbone resnet18 --model.backbone_weights random --model.steps 2 "
        "--model.image_size [64,64] --data anomalib_memd.Phantom --data.modality wli --data.train 8 --data.val 4 "
        "--data.test 4 --data.image_size 64 --trainer.accelerator cpu"
    )
    done = start("anomalib", tmp_path, *arguments.split())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "image_AUROC" in done.stdout
