"""Methods with words: they learn the phantom, and go through the commands of anomalib."""

import importlib.util
import json

import numpy as np
import onnxruntime
import openvino
import pandas as pd
import pytest
import torch
from anomalib.engine import Engine

from anomalib_memd import MVFA, CMGNet, FewShot, LeaveOneOrganOut, LinearProbe, Phantom, Segmentation
from anomalib_memd.components.sentences import PACKAGE
from anomalib_memd.deployment import AS_EXPORTED
from anomalib_memd.models import TextSimilarity
from tests.conftest import start
from tests.integration.test_methods import QUIET
from tests.unit.models.test_mvfa import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="needs the extra 'language'"),
]

LITE = {"backbone": "tf_efficientnet_lite0", "backbone_weights": "package"}
ON_LITE = (
    "--model.backbone tf_efficientnet_lite0 --model.backbone_weights package "
    "--model.layers [blocks.1,blocks.2,blocks.4,blocks.6]"
)
LEVELS = ["blocks.1", "blocks.2", "blocks.4", "blocks.6"]
SMALL = {"widths": [8, 16, 32], "levels": 1, "heads": 4, "image_size": (64, 64), "lr": 0.05}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Folder of rendered frames with a split and masks."""
    data = Phantom(tmp_path_factory.mktemp("phantom"), image_size=64, train=24, val=24, test=32, num_workers=0)
    data.prepare_data()
    return data.root


def measured(model, data, folder):
    engine = Engine(default_root_dir=folder, **QUIET)
    engine.fit(model, datamodule=data)
    return engine.test(model, datamodule=data, verbose=False)[0]


def test_a_few_frames_teach_which_are_abnormal_and_where(phantom, tmp_path):
    torch.manual_seed(0)
    data = FewShot(root=phantom, shots=8, shots_seed=0, modality="wli", train_batch_size=16, num_workers=0)
    found = measured(MVFA(**LITE, layers=LEVELS, image_size=(96, 96), epochs=30, visualizer=False), data, tmp_path)
    assert found["wli_image_AUROC"] > 0.8
    assert found["wli_pixel_AUROC"] > 0.8


def test_another_organ_teaches_without_an_image_of_the_target(phantom, tmp_path):
    torch.manual_seed(0)
    other = Phantom(tmp_path / "other", image_size=64, train=24, val=24, test=4, phantom_seed=7)
    other.prepare_data()
    data = LeaveOneOrganOut(
        roots=[phantom, other.root], root=phantom, draw_seed=0, modality="wli", train_batch_size=16, num_workers=0
    )
    model = MVFA(**LITE, layers=LEVELS, image_size=(96, 96), epochs=20, few_shot_weight=0.0, visualizer=False)
    assert measured(model, data, tmp_path)["wli_image_AUROC"] > 0.75


def test_a_linear_probe_learns_a_few_frames(phantom, tmp_path):
    torch.manual_seed(0)
    data = FewShot(root=phantom, shots=8, shots_seed=0, modality="wli", num_workers=0)
    found = measured(LinearProbe(**LITE, layers=["blocks.2", "blocks.4"], visualizer=False), data, tmp_path)
    assert found["image_AUROC"] > 0.6


def test_segmentation_finds_lesions_whatever_the_text(phantom, tmp_path):
    found = {}
    for name, sections in {"before": ["before"], "record": ["before", "record"]}.items():
        torch.manual_seed(0)
        data = Segmentation(
            root=phantom, metadata={"organ": "colon"}, text_sections=sections, abnormal_share=0.75,
            train_batch_size=8, num_workers=0,
        )  # fmt: skip
        found[name] = measured(CMGNet(**SMALL, epochs=40, visualizer=False), data, tmp_path / name)
    for metrics in found.values():
        assert metrics["pixel_AUROC"] > 0.75
        assert metrics["image_AUROC"] > 0.9
    assert found["before"] != found["record"]


MODELS = {
    "MVFA": lambda: MVFA(clip_config=TINY, image_size=(32, 32)),
    "MVFA on a backbone": lambda: MVFA(**LITE, layers=LEVELS, image_size=(96, 96)),
    "TextSimilarity": lambda: TextSimilarity(clip_config=TINY, image_size=(32, 32)),
    "LinearProbe": lambda: LinearProbe(**LITE, layers=["blocks.2", "blocks.4"]),
    "CMGNet": lambda: CMGNet(**SMALL),
}


NIGHTLY = {"MVFA on a backbone", "LinearProbe"}
"""What is exported of these is exported of others, too."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly) if name in NIGHTLY else name for name in MODELS]
)
def test_an_exported_model_gives_the_same_in_onnx_and_openvino(name, tmp_path):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    model.post_processor = None
    frames = torch.rand(4, 3, 80, 72)
    if name.startswith("MVFA"):
        model.model.remember([model.pre_processor.transform(torch.rand(2, 3, 80, 72))])
    with torch.inference_mode():
        found = [part for part in model(frames) if part is not None]
    path = model.to_onnx(tmp_path, input_size=(80, 72))
    session = onnxruntime.InferenceSession(path)
    network = openvino.Core().compile_model(path, "CPU", AS_EXPORTED)
    assert len(session.get_inputs()) == 1  # The text is folded in.
    for outputs in (
        session.run(None, {session.get_inputs()[0].name: frames.numpy()}),
        list(network(frames.numpy()).values()),
    ):
        for output, expected in zip(outputs, found, strict=True):
            if expected.is_floating_point():
                np.testing.assert_allclose(output.reshape(-1), expected.reshape(-1), atol=2e-3)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (
            f"MVFA {ON_LITE} --model.image_size [64,64] --model.epochs 2",
            "FewShot --data.shots 2 --data.modality wli",
        ),
        (
            "CMGNet --model.widths [8,16] --model.levels 1 --model.heads 4 --model.image_size [64,64] --model.epochs 2",
            "Segmentation --data.metadata.organ colon",
        ),
    ],
)
def test_a_model_goes_through_the_commands_of_anomalib(model, data, phantom, tmp_path):
    common = f"--model anomalib_memd.{model} --trainer.accelerator cpu"
    done = start("anomalib", tmp_path, *f"train {common} --data anomalib_memd.{data} --data.root {phantom}".split())
    assert done.returncode == 0, done.stderr[-2000:]
    run = next(tmp_path.glob("results/*/*/v0"))
    trained = pd.read_csv(run / "training.csv")
    assert set(trained.split) == {"train"}
    checkpoint = run / "weights" / "lightning" / "model.ckpt"
    name = f"anomalib_memd.{model.split()[0]}"
    metrics = json.loads((run / "metrics.json").read_text())
    given = f"--data anomalib_memd.{data} --data.root {phantom} --ckpt_path {checkpoint}"
    again = start("anomalib", tmp_path, *f"test {common} {given}".split())
    assert again.returncode == 0, again.stderr[-2000:]
    for key in ("image_AUROC", "wli_image_AUROC"):
        if key in metrics:
            assert str(metrics[key])[:6] in again.stdout
    predicted = start(
        "anomalib", tmp_path, *f"predict {common} --data {phantom}/polyp --ckpt_path {checkpoint}".split()
    )
    assert predicted.returncode == 0, predicted.stderr[-2000:]
    exported = start("anomalib", tmp_path, *f"export {common} --export_type openvino --ckpt_path {checkpoint}".split())
    assert exported.returncode == 0, exported.stderr[-2000:]
    assert list(tmp_path.rglob("model.xml")), name
