"""The wheel is the product: what it holds runs without the repository."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(folder, *command):
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False, env=clean())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def clean():
    """The environment without what would lead back to this one."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    return {k: v for k, v in os.environ.items() if k not in hidden} | {"HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
def test_the_wheel_trains_the_demo_in_an_empty_folder(tmp_path):
    """The libraries come from the environment of the tests, the package from the wheel alone."""
    run(ROOT, sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ".")
    built = sorted((tmp_path / "dist").iterdir())
    assert [file.suffix for file in built] == [".whl", ".gz"] or [file.suffix for file in built] == [".gz", ".whl"]
    run(ROOT, sys.executable, "-m", "twine", "check", "--strict", *built)

    # An environment whose own packages stand before those that it borrows.
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    own = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (own / "borrowed.pth").write_text("\n".join(borrowed))
    wheel = next(file for file in built if file.suffix == ".whl")
    run(tmp_path, python, "-m", "pip", "install", "--no-deps", "--ignore-installed", "--no-index", wheel)
    folder = tmp_path / "empty"
    folder.mkdir()
    where = run(folder, python, "-c", "import anomalib_memd; print(anomalib_memd.__file__)")
    assert Path(where.strip()).is_relative_to(own)
    program = "from anomalib_memd.cli import main; main()"
    printed = run(folder, python, "-c", program, "configs")
    assert "configs/demo.yaml" in printed
    command = "from anomalib.cli.cli import main; main()"
    options = ["--trainer.limit_train_batches", "1", "--trainer.limit_test_batches", "1"]
    run(folder, python, "-c", command, "train", "--config", "configs/demo.yaml", *options)
    assert list(folder.rglob("model.ckpt"))
