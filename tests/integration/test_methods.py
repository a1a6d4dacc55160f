"""Every other method of the field trains on the phantom, and tells its polyps from normal frames."""

from functools import cache

import pytest
import torch
from anomalib.engine import Engine
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F  # noqa: N812

from anomalib_memd import Phantom, models
from tests.conftest import start

pytestmark = pytest.mark.slow

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
RESNET = {"backbone": "resnet18", "backbone_weights": "random", "image_size": (64, 64)}
LITE = {"backbone": "tf_efficientnet_lite0", "backbone_weights": "package", "image_size": (96, 96)}
SMALL = {"image_size": (64, 64)}
# Steps and rates are those of a short training on 32 frames, not the published ones.
METHODS = {
    "EDC": {**RESNET, "steps": 60, "lr": 1e-3, "encoder_lr": 1e-4},
    "SCRD4AD": {**RESNET, "steps": 60, "lr": 5e-3},
    "ReContrast": {**RESNET, "steps": 30},
    "SkipTS": {**RESNET, "steps": 60},
    "MultiresolutionKD": {**LITE, "layers": ["blocks.1", "blocks.2", "blocks.4"], "steps": 60},
    "FeatureAutoEncoder": {
        **LITE, "layers": ["blocks.1", "blocks.2", "blocks.4"], "distance": "mse", "steps": 100, "lr": 1e-3,
    },
    "MMRAD": {**RESNET, "steps": 60, "lr": 1e-3},
    "SimpleNet": {
        **LITE, "layers": ["blocks.1", "blocks.2"], "noise": 0.5, "steps": 60, "lr": 1e-3, "adaptor_lr": 1e-3,
    },
    "PANDA": {**LITE, "layer": "blocks.4", "steps": 20},
    "MeanShifted": {**LITE, "layer": "blocks.4", "steps": 10},
    "CutPaste": {**LITE, "layer": "blocks.4", "steps": 20},
    "CMP": {**LITE, "layer": "blocks.4", "steps": 40, "lr": 3e-4},
    "AutoEncoder": {**SMALL, "steps": 200},
    "AutoEncoder memory": {**SMALL, "kind": "memory", "steps": 200},
    "DDAD": {**SMALL, "steps": 120},
    "D2UE": {**SMALL, "steps": 120, "lr": 1e-3},
    "FAnoGAN": {"image_size": (32, 32), "steps": 70, "encoder_lr": 1e-3},
    "ForeignPatch nsa": {**SMALL, "kind": "nsa", "steps": 100, "lr": 3e-3},
}  # fmt: skip
BY_MAP = {"CMP", "D2UE"}
"""After so short a training these tell by the map alone where a polyp is, not yet which image has one."""

ELSEWHERE = {"MEMD", "MVFA", "CMGNet", "LinearProbe", "TextSimilarity", "PooledFeatures", "WtNGAN"}
"""Models that other tests train; all of the others are here."""

ON_PAIRS = {"MMRAD"}
"""These learn from pairs, and are asked about white light images alone."""

LONG = {"SCRD4AD", "SimpleNet", "ReContrast", "SkipTS", "ForeignPatch nsa", "FAnoGAN", "D2UE", "DDAD"}
"""The trainings that take longest. Of most, one of the same idea, such as EDC, stays in the tests of each change."""


def built(name):
    """A method, small."""
    return getattr(models, name.split()[0])(**METHODS[name], visualizer=False, evaluator=False)


def test_no_method_is_left_out():
    assert {name.split()[0] for name in METHODS} == set(models.__all__) - ELSEWHERE


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")

    @cache
    def of(modality):
        data = Phantom(
            root, image_size=64, train=32, val=8, test=32, train_batch_size=16, num_workers=0, modality=modality
        )
        data.prepare_data()
        data.setup()
        # As they are: training a method lets the datamodule resize them.
        return data, list(data.test_data)

    return of


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly) if name in LONG else name for name in METHODS]
)
def test_a_method_tells_polyps_from_normal_frames(name, phantom, tmp_path):
    torch.manual_seed(0)
    model = built(name)
    data, items = phantom("paired" if name in ON_PAIRS else "wli")
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


def test_a_method_is_trained_by_the_command_line_of_anomalib(tmp_path):
    arguments = (
        "train --model anomalib_memd.EDC --model.backbone resnet18 --model.backbone_weights random --model.steps 2 "
        "--model.image_size [64,64] --data anomalib_memd.Phantom --data.modality wli --data.train 8 --data.val 4 "
        "--data.test 4 --data.image_size 64 --trainer.accelerator cpu"
    )
    done = start("anomalib", tmp_path, *arguments.split())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "image_AUROC" in done.stdout
