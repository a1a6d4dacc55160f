"""What is kept of a test."""

import pytest
import torch
from anomalib.data import ImageBatch
from torchvision.tv_tensors import Image, Mask

from anomalib_memd.benchmark.recorder import ScoreRecorder


class Model:
    pre_processor = None


def recorded(**predictions):
    recorder = ScoreRecorder("wli")
    recorder.on_test_start(None, Model())
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[1, :4, :4] = True
    batch = ImageBatch(
        image=Image(torch.rand(2, 3, 8, 8)),
        gt_label=torch.tensor([False, True]),
        gt_mask=Mask(mask),
        image_path=["a/0.png", "b/1.png"],
        pred_score=torch.tensor([0.1, 0.9]),
        anomaly_map=mask.float() + 0.1 * torch.rand(2, 8, 8),
        **predictions,
    )
    recorder.on_test_batch_end(None, Model(), batch, batch)
    return recorder


def test_a_detector_has_areas_under_curves_alone():
    assert recorded().pixel_metrics()["wli"] == {"pixel_AUROC": pytest.approx(1), "pixel_AUPRO": pytest.approx(1)}


def test_a_network_that_decides_has_the_overlap_of_its_masks():
    decided = torch.zeros(2, 8, 8, dtype=torch.bool)
    decided[1, :4, :2] = True
    decided[0, 0, :4] = True
    found = recorded(pred_mask=Mask(decided)).pixel_metrics()["wli"]
    # Of 16 abnormal pixels 8 were found; 4 were called abnormal in the image without a lesion.
    assert found["pixel_Dice"] == pytest.approx(2 * 8 / 24)
    assert found["pixel_IoU"] == pytest.approx(8 / 16)
    assert found["pixel_Precision"] == pytest.approx(8 / 12)
    assert found["pixel_Recall"] == pytest.approx(8 / 16)
