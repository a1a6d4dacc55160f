"""Commands that are killed at random moments, and run again: they end as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from PIL import Image

from anomalib_memd import Modality
from tests.conftest import command_environment, deployable_memd
from tests.integration.test_benchmark import CONFIG

pytestmark = pytest.mark.nightly

SMALL = (
    "--model anomalib_memd.MEMD --model.backbone resnet18 --model.backbone_weights random --model.image_size [64,64]",
    "--model.encoder.width 16 --model.visualizer false --data anomalib_memd.Phantom --data.image_size 64",
    "--data.train 24 --data.val 4 --data.test 6 --data.train_batch_size 4 --trainer.accelerator cpu --seed 1",
)
SMALL = " ".join(SMALL).split()
SOLVED = ["--model.training.cache_dir", "cache"]
TRAINED = ["--model.head.evidence", "encoding"]
TRAINED += ["--model.training.teacher_epochs", "8", "--model.training.student_epochs", "8"]


class Runs:
    """Runs of one command in one folder."""

    def __init__(self, folder, *arguments, seed=0):
        self.folder, self.arguments = folder, list(map(str, arguments))
        self.random = random.Random(seed)  # noqa: S311
        self.kills = 0
        (folder / "tmp").mkdir(parents=True)

    def start(self, *more):
        return subprocess.Popen(
            [Path(sys.executable).with_name("anomalib-memd"), *self.arguments, *map(str, more)],
            cwd=self.folder,
            env=command_environment() | {"TMPDIR": str(self.folder / "tmp")},
            stdout=(self.folder / "tmp/out").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def finish(self, *more):
        """Run it to its end; how long that took, in seconds."""
        begun = time.monotonic()
        process = self.start(*more)
        assert process.wait() == 0, (self.folder / "tmp/out").read_text()[-3000:]
        return time.monotonic() - begun

    def kill(self, longest, *more):
        """Run it, and kill it at a random moment; its own processes have to end by themselves."""
        process = self.start(*more)
        try:
            process.wait(self.random.uniform(0.1, 1.0) * longest)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.kills += 1
        patience = time.monotonic() + 60
        while [p for p in psutil.pids() if _session(p) == process.pid]:
            assert time.monotonic() < patience, "processes outlive the one that has started them"
            time.sleep(0.1)

    def left(self):
        """Whatever is there that is unfinished."""
        unfinished = ("*.part*", "*.tmp", ".job-*", ".export-*", "anomalib-memd-*")
        return [path for pattern in unfinished for path in self.folder.rglob(pattern)]


def _session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def files(folder, suffix=""):
    """Files below a folder by their relative names, and what is in them."""
    kept = (
        p
        for p in folder.rglob(f"*{suffix}")
        if p.is_file() and not p.name.endswith(".lock") and "tmp" not in p.parts[-2:]
    )
    return {path.relative_to(folder): path.read_bytes() for path in kept}


def newest(folder):
    """Where training goes on: at the newest checkpoint, if there is one."""
    found = sorted(folder.glob("results/**/model.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    return ["--ckpt_path", str(found[-1])] if found else []


def same(found, expected):
    """Weights are those of another training, bit for bit."""
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("options", [SOLVED, TRAINED], ids=["solved", "trained"])
def test_training_ends_bit_for_bit_as_an_unbroken_one(tmp_path, options):
    whole = Runs(tmp_path / "whole", "train", *SMALL, *options)
    took = whole.finish()
    expected = torch.load(newest(whole.folder)[1], weights_only=False)["state_dict"]
    kills = 0
    for trial in range(5):
        cut = Runs(tmp_path / str(trial), "train", *SMALL, *options, seed=trial)
        while cut.kills < 4:
            cut.kill(took, *newest(cut.folder))
        cut.finish(*newest(cut.folder))
        found = torch.load(newest(cut.folder)[1], weights_only=False)["state_dict"]
        same(found, expected)
        assert not cut.left()
        kills += cut.kills
    assert kills == 20


def test_a_benchmark_ends_with_the_same_scores(tmp_path):
    chosen = {name: CONFIG["methods"][name] for name in ("Pooled Mahalanobis", "MEMD", "no distillation")}
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        config = CONFIG | {"methods": chosen, "latency": False}
        (tmp_path / name / "benchmark.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    command = ["benchmark", "--config", "benchmark.yaml", "--root", ".", "--output", "out"]
    whole, cut = (Runs(tmp_path / name, *command) for name in ("whole", "cut"))
    took = whole.finish()
    while cut.kills < 20:
        # Jobs that are done are not run again; a run that has less to do is killed sooner.
        done = len(list(cut.folder.glob("out/runs/**/result.json")))
        if done == 4:
            for path in cut.folder.glob("out/runs/*/MEMD/*/result.json"):
                path.unlink()
        cut.kill(took * (5 - min(done, 3)) / 5)
    cut.finish()
    expected = {path: pd.read_csv(path) for path in whole.folder.glob("out/runs/**/scores.csv")}
    assert len(expected) == 4
    for path, table in expected.items():
        pd.testing.assert_frame_equal(pd.read_csv(cut.folder / path.relative_to(whole.folder)), table)
    assert set(files(cut.folder / "out/runs")) == set(files(whole.folder / "out/runs"))
    assert not cut.left()


@pytest.fixture
def frames(tmp_path):
    """A folder of 150 frames."""
    folder = tmp_path / "frames"
    for number, pixels in enumerate(np.random.default_rng(0).integers(40, 220, (150, 96, 96, 3), dtype=np.uint8)):
        path = folder / f"{number % 4}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def test_a_translation_ends_with_the_same_images(tmp_path, frames):
    command = ["translate", "--input", frames, "--output", "out", "--num_workers", "1", "--accelerator", "cpu"]
    whole, cut = (Runs(tmp_path / name, *command) for name in ("whole", "cut"))
    took = whole.finish()
    while cut.kills < 20:
        if len(files(cut.folder, ".png")) > 120:
            for path in sorted(cut.folder.rglob("*.png"))[::2]:
                path.unlink()
        cut.kill(took)
    cut.finish()
    assert files(cut.folder) == files(whole.folder)
    assert not cut.left()


def test_scoring_ends_with_the_same_table(tmp_path, frames):
    model = deployable_memd().deployed(Modality.WLI).to_torchscript(tmp_path / "model")
    command = ["score", "--model", model, "--input", frames, "--output", "out", "--table", "parquet"]
    whole, cut = (Runs(tmp_path / name, *command) for name in ("whole", "cut"))
    took = whole.finish()
    while cut.kills < 10:
        table = cut.folder / "out/scores.csv"
        if table.exists() and len(lines := table.read_bytes().splitlines(keepends=True)) > 100:
            table.write_bytes(b"".join(lines[:20]) + lines[20][:9])
        cut.kill(took)
    cut.finish()
    assert files(cut.folder) == files(whole.folder)
    assert not cut.left()


def test_an_export_ends_with_the_same_files(tmp_path):
    train = Runs(tmp_path / "model", "train", *SMALL)
    train.finish()
    formats = '["openvino", "torchscript"]'
    command = ["export", "--ckpt", newest(train.folder)[1], "--output", "out", "--formats", formats]
    whole, cut = (Runs(tmp_path / name, *command) for name in ("whole", "cut"))
    took = whole.finish()
    while cut.kills < 10:
        cut.kill(took)
    cut.finish()
    expected, found = files(whole.folder / "out"), files(cut.folder / "out")
    assert found.keys() == expected.keys()
    weights = [name for name in expected if name.suffix == ".bin"]
    assert weights
    assert all(found[name] == expected[name] for name in weights)
    assert not cut.left()
