"""Metrics against scikit-learn, pictures, and batches."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_memd import Branch, PairedImageBatch, PairedImageItem
from anomalib_memd.evaluation.evaluator import AveragePrecision, MultimodalEvaluator
from anomalib_memd.evaluation.visualizer import MultimodalVisualizer


def random_batch(size=12):
    labels = torch.arange(size) % 2
    masks = torch.zeros(size, 16, 16, dtype=torch.uint8)
    masks[labels == 1, 4:9, 4:9] = 1
    batch = PairedImageBatch(
        image=torch.rand(size, 3, 16, 16),
        nbi_image=torch.rand(size, 3, 16, 16),
        gt_label=labels,
        gt_mask=masks,
        image_path=[f"{i}.png" for i in range(size)],
    )
    for branch in Branch:
        score = torch.rand(size)
        batch.update_branch(branch, InferenceBatch(score, score > 0.5, torch.rand(size, 16, 16)))
    return batch


class Log:
    def log_dict(self, values):
        self.values = {name: float(value) for name, value in values.items()}


def evaluate(batches):
    evaluator, log = MultimodalEvaluator(), Log()
    for batch in batches:
        evaluator.on_test_batch_end(None, None, None, batch, 0)
    evaluator.on_test_epoch_end(None, log)
    return log.values


def test_metrics_equal_those_of_scikit_learn():
    batches = [random_batch(12), random_batch(5)]
    metrics = evaluate(batches)
    for branch in Branch:
        views = [batch.view(branch) for batch in batches]
        labels, scores = (np.concatenate([getattr(v, n).numpy() for v in views]) for n in ("gt_label", "pred_score"))
        masks, maps = (
            np.concatenate([getattr(v, n).numpy().ravel() for v in views]) for n in ("gt_mask", "anomaly_map")
        )
        assert metrics[f"{branch.value}_image_AUROC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)
        precision = average_precision_score(labels, scores)
        assert metrics[f"{branch.value}_image_AveragePrecision"] == pytest.approx(precision, abs=1e-5)
        assert metrics[f"{branch.value}_pixel_AUROC"] == pytest.approx(roc_auc_score(masks, maps), abs=1e-4)
        true, predicted = labels == 1, np.concatenate([v.pred_label.numpy() for v in views])
        f1 = 2 * (true & predicted).sum() / (true.sum() + predicted.sum())
        assert metrics[f"{branch.value}_image_F1Score"] == pytest.approx(f1, abs=1e-5)
    gap = abs(metrics["wli_image_AUROC"] - metrics["nbi_image_AUROC"])
    assert metrics["modality_gap"] == pytest.approx(gap, abs=1e-6)


def test_no_masks_no_pixel_metrics():
    batch = random_batch()
    batch.gt_mask = None
    assert not any("pixel" in name for name in evaluate([batch]))


def test_images_of_one_modality_are_measured_under_its_name():
    evaluator, log = MultimodalEvaluator("nbi"), Log()
    batch = ImageBatch(image=torch.rand(4, 3, 8, 8), gt_label=torch.tensor([0, 1, 0, 1]), pred_score=torch.rand(4))
    batch.pred_label = batch.pred_score > 0.5
    evaluator.on_test_batch_end(None, None, None, batch, 0)
    evaluator.on_test_epoch_end(None, log)
    assert "nbi_image_AUROC" in log.values
    assert not any(name.startswith(("wli", "teacher")) for name in log.values)


def test_average_precision_of_a_perfect_ranking():
    metric = AveragePrecision(fields=["pred_score", "gt_label"])
    scores, labels = torch.tensor([0.1, 0.2, 0.8]), torch.tensor([0, 0, 1])
    metric.update(ImageBatch(image=torch.rand(3, 3, 4, 4), pred_score=scores, gt_label=labels))
    assert float(metric.compute()) == 1


def test_views_are_what_was_put_in():
    batch = random_batch()
    assert torch.equal(batch.view(Branch.NBI).image, batch.nbi_image)
    assert torch.equal(batch.view(Branch.TEACHER).image, batch.image)
    assert torch.equal(batch.view(Branch.WLI).pred_score, batch.pred_score)
    assert [branch for branch, _ in batch.views()] == list(Branch)
    item = batch.items[3]
    assert isinstance(item, PairedImageItem)
    assert torch.equal(item.nbi_image, batch.nbi_image[3])
    assert torch.equal(PairedImageBatch.collate(batch.items).teacher_pred_score, batch.teacher_pred_score)


def test_pair_of_different_sizes_is_refused():
    with pytest.raises(ValueError, match="images of one size"):
        PairedImageBatch(image=torch.rand(2, 3, 8, 8), nbi_image=torch.rand(2, 3, 8, 9))


def test_picture_has_a_panel_for_everything():
    batch = random_batch()
    for branch in Branch:
        view = batch.view(branch)
        view.anomaly_map = view.anomaly_map / view.anomaly_map.max()
        batch.update_branch(branch, view)
    visualizer = MultimodalVisualizer(field_size=(40, 30))
    item = next(iter(batch))
    assert visualizer.draw_pair(item).size == (5 * 40, 30)
    item.gt_mask = None
    assert visualizer.draw_pair(item).size == (4 * 40, 30)
    white = PairedImageItem(image=torch.full((3, 8, 8), 3.0), nbi_image=torch.full((3, 8, 8), -3.0))
    pixels = np.asarray(MultimodalVisualizer(field_size=(200, 160)).draw_pair(white))
    assert pixels[150, 195].min() > 200
    assert pixels[150, 395].max() < 50
