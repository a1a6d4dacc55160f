"""What other systems do not have: forks, and names that differ in capitals alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout  # noqa: S607
    return listed.splitlines() or pytest.skip("needs the repository")


def test_names_of_files_differ_in_more_than_capitals():
    names = tracked()
    assert len({name.lower() for name in names}) == len(names)
    assert not [name for name in names if set(name) & set('<>:"|?*\\') or name.endswith((".", " "))]
    assert not [name for name in names if {part.split(".")[0].lower() for part in Path(name).parts} & RESERVED]


def test_nothing_forks():
    """What starts processes names its way, or takes the one of the system."""
    found = [
        f"{path}: {word}"
        for path in (ROOT / "anomalib_memd").rglob("*.py")
        for word in ("os.fork", '"fork"', "os.getuid", "import resource", "import fcntl", "import pwd")
        if word in path.read_text()
    ]
    assert not found


READ = """
import sys
import torch
from torch.utils.data import DataLoader
from anomalib_memd.components.negatives import NegativePool
from tests.conftest import small_memd, small_phantom

if __name__ == "__main__":
    data = small_phantom(sys.argv[1])
    data.setup()
    model = small_memd()
    pool = NegativePool(data.train_data, model.features.synthesis, 2, model.features.normalize)
    for method in ("spawn", "forkserver"):
        loader = DataLoader(pool, batch_size=4, num_workers=1, multiprocessing_context=method)
        for (images, masks), number in zip(loader, range(0, 12, 4), strict=True):
            expected = [pool[number + place] for place in range(4)]
            assert torch.equal(images, torch.stack([each[0] for each in expected]))
            assert torch.equal(masks, torch.stack([each[1] for each in expected]))
"""


@pytest.mark.slow
def test_images_are_read_by_processes_that_were_not_forked(phantom_root, tmp_path):
    (tmp_path / "read.py").write_text(READ)
    command = [sys.executable, tmp_path / "read.py", phantom_root]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.nightly
def test_a_training_whose_workers_are_spawned(tmp_path):
    program = """
import multiprocessing, sys
from anomalib_memd.cli.main import main
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main(sys.argv[1:])
"""
    (tmp_path / "spawned.py").write_text(program)
    options = (
        "train --model anomalib_memd.MEMD --model.backbone resnet18 --model.backbone_weights random "
        "--model.image_size [64,64] --model.visualizer false --data anomalib_memd.Phantom --data.image_size 64 "
        "--data.train 12 --data.val 4 --data.test 6 --data.num_workers 1 --trainer.accelerator cpu"
    )
    done = subprocess.run(
        [sys.executable, "spawned.py", *options.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "wli_image_AUROC" in done.stdout
