"""Real endoscopic images and real weights, where they are at hand."""

import pytest
import torch
from anomalib import TaskType

from anomalib_memd import Kvasir
from anomalib_memd.backbones import build_backbone
from anomalib_memd.models.memd.embedding import FeatureEmbedding
from tests.conftest import SHARED, needs_shared

pytestmark = needs_shared


@pytest.mark.parametrize(
    ("name", "sizes", "task"),
    [
        ("kvasir-colon", (530, 144, 377), TaskType.SEGMENTATION),
        ("gastrovision-colon", (799, 180, 500), TaskType.CLASSIFICATION),
    ],
)
def test_split_is_read_as_documented(name, sizes, task):
    datamodule = Kvasir(SHARED / "data" / name, num_workers=0)
    datamodule.prepare_data()
    datamodule.setup()
    datasets = (datamodule.train_data, datamodule.val_data, datamodule.test_data)
    assert tuple(map(len, datasets)) == sizes
    assert datamodule.test_data.task is task
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.image.shape == batch.nbi_image.shape
    assert (batch.gt_mask is not None) == (task is TaskType.SEGMENTATION)


def test_white_light_is_redder_than_narrow_band():
    datamodule = Kvasir(SHARED / "data" / "kvasir-colon", num_workers=0)
    datamodule.setup()
    batch = next(iter(datamodule.test_dataloader()))
    redness = [x[:, 0].mean() / x[:, 1:].mean() for x in (batch.image, batch.nbi_image)]
    assert redness[0] > 1.5 > redness[1]


def test_local_weights_are_those_of_a_trained_network():
    """Features of a real image tell it from noise by far, as a random network's would not."""
    datamodule = Kvasir(SHARED / "data" / "kvasir-colon", num_workers=0, eval_batch_size=4)
    datamodule.setup()
    weights = SHARED / "weights" / "resnet50.safetensors"
    backbone = build_backbone("resnet50.tv_in1k", ["layer2", "layer3"], weights=weights)
    image = next(iter(datamodule.test_dataloader())).image
    with torch.no_grad():
        real, noise = (FeatureEmbedding(backbone).eval()(x).mean((-2, -1)) for x in (image, torch.rand_like(image)))
    between = torch.cdist(real, noise).min()
    assert torch.isfinite(real).all()
    assert between > torch.pdist(real).max()
