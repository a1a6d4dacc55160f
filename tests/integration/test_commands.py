"""The commands of the README, run as a user would."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import command_environment

ANOMALIB = Path(sys.executable).with_name("anomalib")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def start(folder, *arguments):
    return subprocess.run(
        [ANOMALIB, *map(str, arguments)],
        cwd=folder,
        env=command_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def run(folder, *arguments):
    done = start(folder, *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def metrics_of(output):
    rows = re.findall(r"│\s+(\w+_(?:AUROC|AUPRO|AveragePrecision|F1Score|gap))\s+│\s+([\d.]+)\s+│", output)
    return {name: float(value) for name, value in rows}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Folder in which the demo has run, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run(folder, "train", "--config", CONFIGS / "demo.yaml")


@pytest.fixture(scope="module")
def checkpoint(demo):
    (path,) = (demo[0] / "results").glob("MEMD/Phantom/v0/weights/lightning/model.ckpt")
    return path


def test_demo_separates_normal_from_abnormal(demo):
    metrics = metrics_of(demo[1])
    for modality in ("wli", "nbi"):
        assert metrics[f"{modality}_image_AUROC"] >= 0.9
        assert metrics[f"{modality}_pixel_AUROC"] >= 0.9
    assert "Stage 1 of 2: teacher" in demo[1]
    assert "Stage 2 of 2: students" in demo[1]
    assert "times one pass of the bare backbone" in demo[1]


def test_demo_draws_every_test_pair(demo):
    pictures = list((demo[0] / "results").rglob("*.png"))
    assert len(pictures) == 120
    assert Image.open(pictures[0]).size == (5 * 256, 256)


def test_test_gives_the_figures_of_training(demo, checkpoint):
    folder, output = demo
    again = run(folder, "test", "--config", CONFIGS / "demo.yaml", "--ckpt_path", checkpoint)
    expected, metrics = metrics_of(output), metrics_of(again)
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        assert value == pytest.approx(expected[name], abs=1e-3)


@pytest.mark.parametrize("modality", ["wli", "nbi"])
def test_predict_on_a_folder(demo, checkpoint, modality):
    folder = demo[0]
    images = next(folder.glob(f"datasets/phantom/*/{modality}/polyp"))
    run(
        folder,
        "predict",
        "--model",
        "anomalib_memd.MEMD",
        "--model.modality",
        modality,
        "--model.backbone",
        "tf_efficientnet_lite0",
        "--model.pre_trained",
        "false",
        "--model.layers",
        "[blocks.2,blocks.4]",
        "--model.image_size",
        "[192,192]",
        "--data",
        images,
        "--ckpt_path",
        checkpoint,
        "--default_root_dir",
        folder / f"predict-{modality}",
    )
    assert len(list((folder / f"predict-{modality}").rglob("*.png"))) == len(list(images.glob("*.png")))


def test_two_processes_agree_with_one(demo, checkpoint):
    """Under DDP, test figures are those of one process, repeated images or not."""
    folder, output = demo
    command = ["test", "--config", CONFIGS / "demo.yaml", "--ckpt_path", checkpoint, "--model.visualizer", "false"]
    parallel = run(
        folder, *command, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"
    )
    expected, metrics = metrics_of(output), metrics_of(parallel)
    for name, value in metrics.items():
        assert value == pytest.approx(expected[name], abs=2e-3)


def test_broken_image_stops_training_with_its_name(tmp_path):
    for name in ("healthy", "polyp"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.jpg")
    rows = ["image,class,label,split"]
    for number, split in enumerate(("train", "train", "val", "val", "test", "test")):
        rows.append(f"healthy/{number}.jpg,healthy,normal,{split}")
        if split != "train":
            rows.append(f"polyp/{number}.jpg,polyp,abnormal,{split}")
    (tmp_path / "data" / "split.csv").write_text("\n".join(rows))
    broken = tmp_path / "data" / "healthy" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    done = start(
        tmp_path, "train", "--config", CONFIGS / "demo.yaml", "--data", "anomalib_memd.Kvasir", "--data.root", "data"
    )
    assert done.returncode != 0
    said = re.sub(r"\W+", "", done.stdout + done.stderr)
    assert re.sub(r"\W+", "", "healthy/1.jpg") in said
    assert "damagedortruncatedimage" in said
