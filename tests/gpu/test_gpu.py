"""MEMD on a GPU: the scores of the CPU, bfloat16, DDP of one, memory and images a second. Takes a few minutes.

python -m pytest -m nightly --numprocesses 0 -s tests/gpu
"""

import time

import pytest
import torch
from anomalib.engine import Engine

from anomalib_memd import MEMD, Modality, Phantom
from anomalib_memd.components import backbones
from anomalib_memd.inference import load_judge
from anomalib_memd.inference.judge import Seen
from tests.conftest import small_memd

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA knows"),
]

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
LITE = {"backbone": "tf_efficientnet_lite0", "backbone_weights": "package", "layers": ["blocks.2", "blocks.4"]}


def phantom(folder):
    return Phantom(folder, image_size=192, train=64, val=16, test=40, num_workers=0)


def train(folder, root, accelerator, **options):
    torch.manual_seed(0)
    data = phantom(root)
    engine = Engine(accelerator=accelerator, devices=1, default_root_dir=folder, **QUIET)
    model = MEMD(**{**LITE, "image_size": (192, 192), "visualizer": False, **options})
    engine.fit(model, datamodule=data)
    metrics = engine.test(model, datamodule=data, verbose=False)[0]
    path = folder / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    return path, metrics


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same training on both processors."""
    root = tmp_path_factory.mktemp("phantom")
    return {
        accelerator: train(tmp_path_factory.mktemp(accelerator), root, accelerator) for accelerator in ("cpu", "gpu")
    }


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    data = phantom(tmp_path_factory.mktemp("frames"))
    data.prepare_data()
    data.setup()
    return [
        (image.permute(1, 2, 0) * 255).round().byte().numpy()
        for item in data.test_data
        for image in (item.image.as_subclass(torch.Tensor),)
    ]


@pytest.mark.parametrize("evidence", ["solved for", "judged"])
def test_scores_are_those_of_the_cpu(trained, frames, monkeypatch, evidence):
    """Of what was trained on either, and of one checkpoint that is judged by on either."""
    paths = [trained["cpu"][0], trained["gpu" if evidence == "solved for" else "cpu"][0]]
    scores = []
    for path, gpu in zip(paths, (False, evidence == "judged"), strict=True):
        with monkeypatch.context() as patched:
            patched.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
            judge = load_judge(path)
        scores.append([found.score for found in judge(Seen(frame, Modality.WLI) for frame in frames)])
    torch.testing.assert_close(torch.tensor(scores[0]), torch.tensor(scores[1]), atol=1e-2, rtol=0)


def test_it_detects_on_a_gpu(trained):
    for accelerator, (_, metrics) in trained.items():
        for modality in Modality:
            assert metrics[f"{modality.value}_image_AUROC"] > 0.9, accelerator


def test_networks_learn_in_bfloat16(tmp_path):
    assert backbones.computes_in_bfloat16(torch.device("cuda")) == torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    learned = {"head": {"evidence": "encoding"}, "encoder": {"width": 64}}
    training = {"teacher_epochs": 20, "student_epochs": 20, "learning_rate": 5e-3, "noise": 1.0}
    _, metrics = train(tmp_path, tmp_path / "phantom", "gpu", **learned, training=training)
    assert metrics["teacher_image_AUROC"] > 0.8


def test_ddp_of_one_process(tmp_path):
    data = Phantom(tmp_path / "phantom", image_size=64, train=12, val=4, test=6, num_workers=0)
    engine = Engine(accelerator="gpu", devices=1, strategy="ddp", default_root_dir=tmp_path, **QUIET)
    engine.fit(small_memd(), datamodule=data)
    assert engine.trainer.current_epoch == 2


def test_memory_and_images_a_second(trained, frames):
    """Printed, and bounded by what any GPU has."""
    judge = load_judge(trained["gpu"][0])
    seen = [Seen(frame, Modality.WLI) for frame in frames] * 10
    list(judge(seen[:10]))
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    started = time.monotonic()
    found = list(judge(seen))
    took = time.monotonic() - started
    memory = torch.cuda.max_memory_allocated() / 1e9
    print(f"{torch.cuda.get_device_name()}: {len(found) / took:.0f} images a second, one by one; {memory:.2f} GB.")  # noqa: T201
    assert memory < 4
