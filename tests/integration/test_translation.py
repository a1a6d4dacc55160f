"""The commands of the README that make narrow band images."""

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import start

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = ["--model.width", "4", "--model.blocks", "1", "--data.crop_size", "32", "--data.num_workers", "0"]


def run(folder, *arguments):
    done = start("anomalib-memd", folder, *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(phantom_root, tmp_path_factory):
    """Folder of the phantom, folder of a training that was resumed once, and its checkpoint."""
    phantom, folder = next(phantom_root.iterdir()), tmp_path_factory.mktemp("wtngan")
    data = ["--data.wli_root", phantom / "wli", "--data.nbi_root", phantom / "nbi"]
    command = ["wtngan", "fit", "--config", CONFIGS / "wtngan_small.yaml", *SMALL, *data]
    run(folder, *command, "--trainer.max_epochs", "1")
    (first,) = folder.rglob("*.ckpt")
    run(folder, *command, "--trainer.max_epochs", "2", "--ckpt_path", first)
    (last,) = folder.rglob("epoch=1*.ckpt")
    return phantom, folder, last


@pytest.mark.slow
def test_a_trained_generator_translates(trained):
    phantom, folder, weights = trained
    options = ["--input", phantom / "wli", "--weights", weights, "--accelerator", "cpu"]
    printed = run(folder, "translate", "--output", "learned", *options)
    images = pd.read_csv(phantom / "wli" / "split.csv").image
    assert printed.splitlines()[-1].split()[:3] == [str(len(images)), "0", "0"]
    assert all((folder / "learned" / name).is_file() for name in images)
    again = run(folder, "translate", "--output", "learned", *options)
    assert again.splitlines()[-1].split()[:3] == ["0", str(len(images)), "0"]


@pytest.mark.slow
def test_the_whole_recipe_is_that_of_the_paper(tmp_path):
    printed = run(
        tmp_path, "wtngan", "fit", "--config", CONFIGS / "wtngan.yaml", "--data.wli_root", "a", "--data.nbi_root", "b",
        "--print_config",
    )  # fmt: skip
    for line in (
        "max_epochs: 200",
        "learning_rate: 0.0002",
        "adversarial_weight: 1.0",
        "contrastive_weight: 1.0",
        "structure_weight: 10.0",
        "crop_size: 256",
    ):
        assert line in printed
