"""Training under DDP, over gloo on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = """
import json, sys, torch
from anomalib.engine import Engine
from anomalib_memd.components.two_stage import Stage
from tests.conftest import small_memd, small_phantom

root, out, devices, evidence = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
torch.manual_seed(0)
model = small_memd(patience=5, validation_interval=1, evidence=evidence, noise=0.0)
# One step an epoch over all images, no random choice: what order and share images come in cannot matter.
datamodule = small_phantom(root, train_batch_size=12 // devices)
model.features.negatives = 1
model.objective.modality_dropout = 0.0
torch.manual_seed(0)
engine = Engine(default_root_dir=out, accelerator="cpu", devices=devices, logger=False, enable_progress_bar=False,
                strategy="ddp" if devices > 1 else "auto", enable_model_summary=False)
engine.train(model, datamodule=datamodule)
state = model.two_stage_training.state_dict()
report = {
    "stage": state["stage"],
    "best": state["best"],
    "metrics": {k: float(v) for k, v in engine.trainer.callback_metrics.items()},
    "temperature": [float(t) for t in model.objective.temperature().values()],
    "thresholds": [float(model.post_processor.branches[b].image_threshold) for b in ("wli", "nbi", "teacher")],
    "mean": float(sum(v.sum() for k, v in model.model.teacher.named_buffers() if k.endswith("standardize.mean"))),
    "teacher": [float(p.detach().double().abs().sum()) for p in model.model.teacher.parameters()],
    "evidence": [x for k, v in model.model.named_buffers() if k.endswith("evidence.weight") for x in v.tolist()],
    "weights": [float(p.detach().double().abs().sum()) for p in model.model.students.parameters()],
}
with open(f"{out}/rank{engine.trainer.global_rank}.json", "w") as file:
    json.dump(report, file)
"""


def train(root, out, devices, evidence):
    out.mkdir()
    script = out / "train.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(root), str(out), str(devices), evidence]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(devices)]


@pytest.fixture(scope="module", params=["backbone", pytest.param("encoding", marks=pytest.mark.nightly)])
def reports(phantom_root, tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("ddp")
    return train(phantom_root, folder / "one", 1, request.param)[0], train(
        phantom_root, folder / "two", 2, request.param
    )


@pytest.mark.slow
def test_processes_share_a_folder_to_translate(phantom_root, tmp_path):
    wli = next(phantom_root.iterdir()) / "wli"
    command = [
        sys.executable, "-m", "anomalib_memd.cli", "translate", "--input", str(wli), "--output", str(tmp_path / "nbi"),
        "--accelerator", "cpu", "--devices", "2", "--num_workers", "0",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    images = pd.read_csv(wli / "split.csv").image
    assert all((tmp_path / "nbi" / name).is_file() for name in images)
    assert done.stdout.splitlines()[-1].split()[:3] == [str(len(images)), "0", "0"]


@pytest.mark.slow
def test_processes_agree_with_each_other(reports):
    first, second = reports[1]
    for name in ("stage", "best", "temperature", "thresholds", "mean", "teacher", "evidence", "weights"):
        assert first[name] == pytest.approx(second[name], abs=1e-6), name


@pytest.mark.slow
def test_two_processes_agree_with_one(reports):
    one, (two, _) = reports
    assert two["stage"] == one["stage"] == "students"
    # Kept features, their statistics and what is solved for are the same; gradients of both halves are averaged.
    assert two["mean"] == pytest.approx(one["mean"], rel=1e-3)
    # A bias before a batch normalisation has no gradient but what rounding makes of it.
    assert two["teacher"] == pytest.approx(one["teacher"], rel=0.02, abs=1e-3)
    assert two["evidence"] == pytest.approx(one["evidence"], abs=0.02)
    assert two["temperature"] == pytest.approx(one["temperature"], rel=0.05)
    assert two["weights"] == pytest.approx(one["weights"], rel=0.02, abs=1e-3)
    assert two["thresholds"] == pytest.approx(one["thresholds"], rel=0.1, abs=0.05)
    for name, value in two["metrics"].items():
        if name.endswith("AUROC"):
            assert value == pytest.approx(one["metrics"][name], abs=0.12), name
