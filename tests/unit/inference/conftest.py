"""A judge whose answers are known."""

from pathlib import Path

import numpy as np
import pytest
from anomalib.engine import Engine

from anomalib_memd.deployment.stream import FramePrediction
from anomalib_memd.modality import Modality
from tests.conftest import deployable_memd


class RednessJudge:
    """Calls a frame abnormal by how red it is; its map is the red channel, where it is above the mean."""

    def __init__(self, path="model.xml", modalities=(Modality.WLI, Modality.NBI), threshold=0.5):
        self.path = Path(path)
        self.thresholds = dict.fromkeys(modalities, threshold)
        self.seen = []

    def __call__(self, frames):
        for image, modality in frames:
            self.seen.append(modality)
            red = image[..., 0].astype(np.float32) / 255
            yield FramePrediction(float(red.mean()), bool(red.mean() >= 0.5), red[::4, ::4], red[::4, ::4] >= 0.9)


@pytest.fixture
def judge():
    return RednessJudge()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Checkpoint of a small MEMD with random weights."""
    path = tmp_path_factory.mktemp("checkpoint") / "model.ckpt"
    model = deployable_memd()
    engine = Engine(accelerator="cpu", logger=False, default_root_dir=path.parent)
    engine._setup_trainer(model)
    engine.trainer.strategy.connect(model)
    engine.trainer.save_checkpoint(path)
    return path
