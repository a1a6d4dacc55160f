"""Disks that are full or read-only, files that disappear, workers that are killed, and clocks that go back."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from anomalib_memd import Modality
from tests.conftest import command_environment, deployable_memd, small_phantom
from tests.nightly.test_kills import SMALL, SOLVED, TRAINED, files, newest, same

pytestmark = pytest.mark.nightly

COMMAND = Path(sys.executable).with_name("anomalib-memd")
MOUNT, UNMOUNT = shutil.which("mount"), shutil.which("umount")
TRACE = "Traceback (most recent call last)"


@pytest.fixture
def small_disk(tmp_path):
    """A function that gives a disk of a number of megabytes, and another that lets it be read alone."""
    mounted = []

    if MOUNT is None:
        pytest.skip("needs a system that mounts disks in memory")

    def make(megabytes, *options):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        size = ",".join([f"size={megabytes}m", *options])
        if subprocess.run([MOUNT, "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False).returncode:
            pytest.skip("needs the right to mount a disk in memory")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run([UNMOUNT, "-l", folder], check=True)


def run(folder, *arguments, **more):
    done = subprocess.run(
        [COMMAND, *map(str, arguments)], cwd=folder, env=command_environment() | more, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    done.said = done.stdout + done.stderr
    return done


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(40, 220, (60, 96, 96, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture
def model(tmp_path):
    return deployable_memd().deployed(Modality.WLI).to_torchscript(tmp_path / "model")


def refused(done, *fragments):
    """It has ended by an error of one line."""
    assert done.returncode not in {0, -signal.SIGBUS, -signal.SIGSEGV}, done.said[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("anomalib-memd: "), done.said[-3000:]
    assert TRACE not in done.stderr, done.stderr[-3000:]
    for fragment in fragments:
        assert fragment in last, last


def test_features_that_do_not_fit_on_the_disk(small_disk, tmp_path):
    disk = small_disk(1)
    options = ["--model.training.cache_dir", disk / "cache"]
    refused(run(tmp_path, "train", *SMALL, *options), "The features of 24 pairs need", "set cache_dir to another disk")
    assert not files(disk)


def test_scores_that_do_not_fit_on_the_disk(small_disk, tmp_path, model, frames):
    disk = small_disk(1)
    (disk / "full").write_bytes(b"0" * ((1 << 20) - 12_000))
    refused(run(tmp_path, "score", "--model", model, "--input", frames, "--output", disk / "out"), "No space left")
    (disk / "full").unlink()
    done = run(tmp_path, "score", "--model", model, "--input", frames, "--output", disk / "out")
    assert done.returncode == 0, done.said
    run(tmp_path, "score", "--model", model, "--input", frames, "--output", tmp_path / "whole")
    assert files(disk / "out") == files(tmp_path / "whole")


def test_a_translation_that_does_not_fit_on_the_disk(small_disk, tmp_path, frames):
    disk = small_disk(1)
    command = ["translate", "--input", frames, "--num_workers", "0", "--accelerator", "cpu", "--output"]
    refused(run(tmp_path, *command, disk / "out"), "No space left")
    for path in disk.rglob("*.png"):
        Image.open(path).load()
    assert not list(disk.rglob("*.part*"))


def test_an_export_that_does_not_fit_on_the_disk(small_disk, tmp_path):
    run(tmp_path, "train", *SMALL)
    disk = small_disk(1)
    refused(run(tmp_path, "export", "--ckpt", newest(tmp_path)[1], "--output", disk / "out"))
    assert not files(disk)


@contextmanager
def read_only(folder):
    subprocess.run([MOUNT, "-o", "remount,ro", folder], check=True)
    try:
        yield
    finally:
        subprocess.run([MOUNT, "-o", "remount,rw", folder], check=True)


def test_a_results_folder_that_is_read_only(small_disk, tmp_path, model, frames):
    disk = small_disk(8)
    (disk / "benchmark.yaml").write_text(
        "datasets: {phantom: {class_path: anomalib_memd.Phantom, init_args: {root: phantom}}}\n"
        "methods: {MEMD: {class_path: MEMD, paired: true}}\n"
    )
    with read_only(disk):
        for command in (
            ["score", "--model", model, "--input", frames],
            ["translate", "--input", frames],
            ["benchmark", "--config", disk / "benchmark.yaml", "--root", tmp_path],
        ):
            refused(run(tmp_path, *command, "--output", disk / "out"), "Read-only file system", str(disk))
        done = run(disk, "train", *SMALL, "--data.root", tmp_path / "phantom", "--default_root_dir", disk / "results")
        refused(done, "Read-only file system")


def begun(folder, process, sign):
    """Wait until a run has come to somewhere."""
    patience = time.monotonic() + 120
    while not list(folder.rglob(sign)):
        assert process.poll() is None
        assert time.monotonic() < patience
        time.sleep(0.02)


def start(folder, *arguments):
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)], cwd=folder, env=command_environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def filling(folder, workers):
    """A training that computes features at the moment."""
    small_phantom(folder / "phantom", train=200).prepare_data()
    options = ["--data.root", folder / "phantom", "--data.train", "200", "--data.num_workers", workers, *SOLVED]
    process = start(folder, "train", *SMALL, *options)
    begun(folder, process, "*.part")
    return process


def broken_off(folder, process):
    """What a training has said that could not go on, and its last line; it leaves nothing."""
    said, _ = process.communicate()
    assert process.returncode == 1
    assert not list(folder.rglob("*.part"))
    return said, said.strip().splitlines()[-1]


def test_an_image_that_disappears_meanwhile(tmp_path):
    process = filling(tmp_path, workers=2)
    gone = sorted((tmp_path / "phantom").rglob("wli/normal/train-*.png"))[-1]
    gone.unlink()
    said, last = broken_off(tmp_path, process)
    assert f"{gone}: no such image." in said
    assert last.startswith("anomalib-memd: ") or str(gone) in last


def test_a_worker_that_is_killed_for_memory(tmp_path):
    process = filling(tmp_path, workers=1)
    workers = []
    while not workers:
        workers = [child for child in psutil.Process(process.pid).children() if "resource_tracker" not in str(child)]
    for worker in workers:
        worker.kill()
    _, last = broken_off(tmp_path, process)
    assert last.startswith("anomalib-memd: DataLoader worker")
    assert "where memory runs out: lower num_workers" in last


def test_two_runs_that_share_a_cache_at_the_same_time(tmp_path):
    data = small_phantom(tmp_path / "phantom", train=24)
    data.prepare_data()
    options = ["--data.root", tmp_path / "phantom", "--model.training.cache_dir", tmp_path / "cache"]
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    processes = [start(folder, "train", *SMALL, *options) for folder in folders]
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0, said[-2000:]
    first, second = (torch.load(newest(folder)[1], weights_only=False)["state_dict"] for folder in folders)
    same(first, second)
    assert len(list((tmp_path / "cache").glob("*.features"))) == 1
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_clock_that_is_set_back(tmp_path, model, frames):
    """What lies in the future is used as ever, and the time of day decides nothing."""
    before = tmp_path / "clock.py"
    before.write_text(
        "import itertools, sys, time\n"
        "steps = itertools.count(2e9, -3600)\n"
        "time.time = lambda: next(steps)\n"
        "from anomalib_memd.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    command = ["score", "--model", str(model), "--input", str(frames), "--output"]
    run(tmp_path, *command, "whole")
    subprocess.run([sys.executable, before, *command, "back"], cwd=tmp_path, env=command_environment(), check=True)
    assert files(tmp_path / "back") == files(tmp_path / "whole")
    data = tmp_path / "train"
    options = ["--data.root", tmp_path / "phantom", *TRAINED]
    run(data.parent, "train", *SMALL, *options)
    expected = torch.load(newest(tmp_path)[1], weights_only=False)["state_dict"]
    shutil.rmtree(tmp_path / "results")
    for path in (tmp_path / "phantom").rglob("*"):
        os.utime(path, (4e9, 4e9))
    arguments = ["train", *SMALL, *map(str, options)]
    subprocess.run([sys.executable, before, *arguments], cwd=tmp_path, env=command_environment(), check=True)
    found = torch.load(newest(tmp_path)[1], weights_only=False)["state_dict"]
    same(found, expected)
