"""What a run says and writes."""

import json
import logging
import sys
from types import SimpleNamespace

import pytest
from anomalib.engine import Engine

from anomalib_memd import progress
from anomalib_memd.evaluation import narration
from tests.conftest import small_memd, small_phantom


@pytest.fixture
def train(tmp_path, phantom_root, caplog):
    def run(program):
        sys.argv = program
        model = small_memd(teacher_epochs=2, student_epochs=1, evidence="encoding")
        engine = Engine(accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_model_summary=False)
        with caplog.at_level(logging.INFO):
            engine.train(model, datamodule=small_phantom(phantom_root))
        return engine

    return run


def test_a_run_without_a_terminal_says_a_line_an_epoch_and_what_comes_next(train, caplog, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    engine = train(["/bin/anomalib", "train"])
    lines = [record.getMessage() for record in caplog.records]
    epochs = [text for text in lines if "Epochs: " in text]
    assert [text.split(",", maxsplit=1)[0] for text in epochs] == ["Stage teacher", "Stage teacher", "Stage students"]
    assert "loss" in epochs[0]
    assert "Epochs: 1 of 3 (33%)" in epochs[0]
    assert any(text.startswith("Test: 1 of 1") for text in lines)
    (told,) = [text for text in lines if text.startswith("Metrics: ")]
    assert f"anomalib-memd score --model {engine.best_model_path} --input FOLDER" in told
    assert told.count("\n  anomalib-memd ") == 3


def test_the_metrics_are_written_beside_the_pictures(train, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", sys.argv)
    engine = train(["pytest", "train"])
    (path,) = tmp_path.rglob("metrics.json")
    content = json.loads(path.read_text())
    assert content["model"] == "MEMD"
    assert content["dataset"] == "Phantom"
    logged = engine.trainer.callback_metrics
    assert content["metrics"]["wli_image_AUROC"] == pytest.approx(float(logged["wli_image_AUROC"]))
    assert not any("Next, for example" in record.getMessage() for record in caplog.records)


def test_how_far_an_epoch_is_is_told_by_the_time_of_that_epoch(monkeypatch, caplog):
    now = 0.0
    monkeypatch.setattr(narration.time, "monotonic", lambda: now)
    trainer = SimpleNamespace(
        current_epoch=2, num_training_batches=45, is_global_zero=True, fit_loop=SimpleNamespace(batch_idx=2)
    )
    told = narration.Narration()
    with caplog.at_level(logging.INFO):
        told.on_train_start(trainer, None)
        now = 190.0  # Two epochs later.
        told.on_train_epoch_start(trainer, None)
        now = 220.0
        told.on_train_batch_end(trainer, None)
    assert caplog.messages == ["Training, epoch 3: 3 of 45 (7%) in 30 s, about 420 s left"]
