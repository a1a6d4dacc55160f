"""The commands of the README, run as a user would."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from PIL import Image

from anomalib_memd.deployment import AS_EXPORTED
from anomalib_memd.deployment.metadata import read_metadata
from tests.conftest import start

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def run(folder, *arguments):
    done = start("anomalib", folder, *arguments)
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


@pytest.mark.slow
def test_demo_separates_normal_from_abnormal(demo):
    metrics = metrics_of(demo[1])
    for modality in ("wli", "nbi"):
        assert metrics[f"{modality}_image_AUROC"] >= 0.9
        assert metrics[f"{modality}_pixel_AUROC"] >= 0.9
    assert "Stage 1 of 2: teacher" in demo[1]
    assert "Stage 2 of 2: students" in demo[1]
    assert "times one pass of the bare backbone" in demo[1]


@pytest.mark.slow
def test_demo_draws_every_test_pair(demo):
    pictures = list((demo[0] / "results").rglob("*.png"))
    assert len(pictures) == 120
    assert Image.open(pictures[0]).size == (5 * 256, 256)


@pytest.mark.slow
def test_test_gives_the_figures_of_training(demo, checkpoint):
    folder, output = demo
    options = ["--data", "anomalib_memd.Phantom", "--ckpt_path", checkpoint]
    again = run(folder, "test", *MODEL, *options)
    expected, metrics = metrics_of(output), metrics_of(again)
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        assert value == pytest.approx(expected[name], abs=1e-3)


# A checkpoint knows all else.
MODEL = ["--model", "anomalib_memd.MEMD"]


def predict(folder, modality, images, checkpoint, output):
    options = ["--data", images, "--ckpt_path", checkpoint, "--default_root_dir", output]
    printed = run(folder, "predict", *MODEL, "--model.modality", modality, *options)
    return pd.read_csv(next(output.rglob("predictions.csv"))), printed


@pytest.fixture(scope="module")
def predicted(demo, checkpoint, tmp_path_factory):
    """A folder of narrow band images, some normal and one broken, and what was predicted of them."""
    images = tmp_path_factory.mktemp("images")
    for kind in ("normal", "polyp"):
        for file in sorted(next(demo[0].glob(f"datasets/phantom/*/nbi/{kind}")).glob("test-*.png"))[:6]:
            shutil.copy(file, images / f"{kind}-{file.name}")
    (images / "broken.png").write_bytes(file.read_bytes()[:200])
    output = demo[0] / "predict"
    return images, output, *predict(demo[0], "nbi", images, checkpoint, output)


@pytest.mark.slow
def test_predict_on_a_folder_draws_and_writes_a_table(predicted):
    images, output, table, printed = predicted
    assert len(list(output.rglob("*.png"))) == 12
    assert list(table.columns) == ["path", "modality", "score", "label", "threshold", "error"]
    assert set(table.path) == set(map(str, images.iterdir()))
    assert "12 predictions and 1 errors" in printed
    (broken,) = table[table.error.notna()].itertuples()
    assert broken.path.endswith("broken.png")
    assert "damaged or truncated" in broken.error
    whole = table[table.error.isna()]
    assert set(whole.modality) == {"nbi"}
    assert list(whole.label == "abnormal") == list(whole.score >= whole.threshold)
    scores = whole.set_index("path").score
    assert scores[scores.index.str.contains("polyp")].mean() > scores[scores.index.str.contains("normal")].mean() + 0.1
    assert "look like" not in printed


@pytest.mark.slow
def test_predict_tells_of_the_other_modality(predicted, demo, checkpoint):
    _, printed = predict(demo[0], "wli", predicted[0], checkpoint, demo[0] / "predict-wrong")
    assert "look like NBI images" in re.sub(r"\s+", " ", printed)


def agrees_with_predict(kind, file, predicted, tolerance):
    """An inferencer of anomalib gives the scores of `predict`, and the file says what it is."""
    scores = predicted[2].dropna(subset="score").set_index("path").score
    inferencer = kind(file, "CPU", AS_EXPORTED) if kind is OpenVINOInferencer else kind(file)
    found = [float(np.squeeze(inferencer.predict(path).pred_score)) for path in scores.index]
    np.testing.assert_allclose(found, scores, atol=tolerance)
    assert read_metadata(file).branch == "nbi"
    assert read_metadata(file).classes == ("normal",)
    assert len(read_metadata(file).checkpoint) == 64


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["openvino", pytest.param("torch", marks=pytest.mark.nightly)])
def test_exports_score_as_predict_does(kind, predicted, demo, checkpoint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    options = ["--export_type", kind, "--ckpt_path", checkpoint, "--export_root", tmp_path]
    run(demo[0], "export", *MODEL, "--model.modality", "nbi", *options)
    if kind == "torch":
        agrees_with_predict(TorchInferencer, tmp_path / "weights/torch/model.pt", predicted, 1e-3)
    else:
        agrees_with_predict(OpenVINOInferencer, tmp_path / "weights/openvino/model.xml", predicted, 1e-3)


@pytest.mark.slow
@pytest.mark.nightly
def test_a_compressed_export_scores_nearly_as_predict_does(predicted, demo, checkpoint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ["export", "--ckpt", checkpoint, "--output", tmp_path, "--compression", "FP16", "--branches", '["nbi"]']
    done = start("anomalib-memd", demo[0], *command)
    assert done.returncode == 0, done.stderr[-3000:]
    agrees_with_predict(OpenVINOInferencer, tmp_path / "nbi/weights/openvino/model.xml", predicted, 5e-3)


@pytest.mark.slow
@pytest.mark.nightly
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
        "anomalib",
        tmp_path,
        "train",
        "--config",
        CONFIGS / "demo.yaml",
        "--data",
        "anomalib_memd.Kvasir",
        "--data.root",
        "data",
    )
    assert done.returncode != 0
    said = re.sub(r"\W+", "", done.stdout + done.stderr)
    assert re.sub(r"\W+", "", "healthy/1.jpg") in said
    assert "damagedortruncatedimage" in said
