"""The wheel is the product: the page *From a folder to answers* is walked with it, without the repository."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_memd import Phantom
from anomalib_memd.data.tissue import Lesion
from tests.conftest import phantom_clip

ROOT = Path(__file__).resolve().parents[2]
SCENES = [(2.0, 505, None), (1.5, 507, Lesion.POLYP), (2.0, 500, None), (1.0, 508, Lesion.ULCER), (1.0, 504, None)]
"""Seconds, seed and lesion of the scenes of the clip."""


def run(folder, *command):
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False, env=clean())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def clean():
    """The environment without what would lead back to this one."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    return {k: v for k, v in os.environ.items() if k not in hidden} | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def python(tmp_path):
    """An environment with the package from the wheel alone, and the libraries of the tests."""
    run(ROOT, sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ".")
    built = sorted((tmp_path / "dist").iterdir())
    assert {file.suffix for file in built} == {".whl", ".gz"}
    run(ROOT, sys.executable, "-m", "twine", "check", "--strict", *built)
    # An environment whose own packages stand before those that it borrows.
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    own = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (own / "borrowed.pth").write_text("\n".join(borrowed))
    wheel = next(file for file in built if file.suffix == ".whl")
    run(tmp_path, python, "-m", "pip", "install", "--no-deps", "--ignore-installed", "--no-index", wheel)
    where = run(tmp_path, python, "-c", "import anomalib_memd; print(anomalib_memd.__file__)")
    assert Path(where.strip().splitlines()[-1]).is_relative_to(own)
    return python


@pytest.fixture
def folder(tmp_path):
    """Normal images alone, a folder of other tissue, and a clip with two lesions that come and go."""
    root = tmp_path / "work"
    wanted = ((0, "my-images", "normal/train*.png", 120, 2), (1, "other-hospital", "*/test*.png", 2, 30))
    for seed, name, files, train, test in wanted:
        data = Phantom(tmp_path / "phantom", train=train, val=2, test=test, phantom_seed=seed)
        data.prepare_data()
        for file in (data.folder / "wli").glob(files):
            if file.parent.parent.name == "masks":
                continue
            below = "normal" if file.parent.name == "normal" else f"abnormal/{file.parent.name}"
            (root / name / below).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / name / below)
    phantom_clip(root / "clip.mp4", SCENES)
    return root


def page_opens(folder, command, port):
    """Start the page, look at it, and end it."""
    with subprocess.Popen(
        command, cwd=folder, env=clean(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            for _ in range(300):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}") as answer:
                        return b"anomalib-memd" in answer.read()
                except OSError:
                    assert process.poll() is None, process.stdout.read()[-2000:]
                    time.sleep(0.5)
        finally:
            process.kill()
    return False


@pytest.mark.slow
def test_the_walk_from_a_folder_to_answers(python, folder):
    text = (ROOT / "docs" / "walk.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines()
    assert {shlex.split(line)[1] for line in lines} == {"configs", "train", "score", "test", "video", "app", "export"}
    program = "import sys; sys.argv[0] = 'anomalib-memd'; from anomalib_memd.cli import main; main()"
    printed = {}
    for line in lines:
        command = [str(python), "-c", program, *shlex.split(line)[1:]]
        if "app" in command:
            assert page_opens(folder, command, command[command.index("--port") + 1])
        else:
            printed[line] = run(folder, *command)

    train = next(output for line, output in printed.items() if " train " in line)
    assert "my-images was split, see my-images/split.csv" in train
    assert "10% of them are called abnormal" in train
    assert "anomalib-memd score --model" in train
    scores = pd.read_csv(folder / "scores" / "scores.csv")
    abnormal = scores.path.str.contains("/abnormal/")
    assert len(scores) == 60
    assert roc_auc_score(abnormal, scores.score) >= 0.9
    assert (scores.label[~abnormal] == "abnormal").mean() <= 0.3  # A tenth was asked for, of other tissue.
    assert len(list((folder / "scores" / "overlays").glob("*.jpg"))) == (scores.label == "abnormal").sum()
    exported = pd.read_csv(folder / "scores-openvino" / "scores.csv")
    assert (exported.score - scores.score).abs().max() < 0.01
    external = next(output for line, output in printed.items() if " test " in line)
    assert "thresholds are those of the checkpoint" in external
    assert "wli_image_AUROC" in external
    events = pd.read_csv(folder / "video" / "events.csv")
    assert events.start.tolist() == pytest.approx([2.0, 5.5], abs=0.3)
    assert events.end.tolist() == pytest.approx([3.5, 6.5], abs=0.3)
