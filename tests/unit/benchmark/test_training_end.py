"""How a job's training ends: by the loss on held-back images, by steps, by the clock, or as in a run before."""

import time
from types import SimpleNamespace

import pytest
import timm
import torch
from anomalib.engine import Engine
from anomalib.models import get_model
from lightning import Trainer

from anomalib_memd.benchmark import training_end
from anomalib_memd.benchmark.training_end import (
    LOSS,
    REPEATED,
    STEPS,
    TIME,
    KeptImages,
    TrainingEnd,
    held_back_loss,
    hold_back,
)
from tests.conftest import small_phantom
from tests.unit.models.test_trained import QUIET, Learner


def fit(phantom_root, tmp_path, end, hold=True, **options):
    data = small_phantom(phantom_root, modality="wli")
    end.held_back = hold_back(data, 0.25) if hold else None
    module = Learner(**options)
    Engine(callbacks=[end], default_root_dir=tmp_path, limit_val_batches=0, **QUIET).fit(module, datamodule=data)
    return module


def test_steps_end_what_nothing_else_does(phantom_root, tmp_path):
    end = TrainingEnd()
    fit(phantom_root, tmp_path, end, steps=7)
    assert (end.ends, end.reasons, end.seen) == ([7], [STEPS], 7)
    assert [seen for seen, _ in end.losses] == [2, 4, 6, 7]  # After each epoch of two batches.
    values = [loss for _, loss in end.losses]
    assert values == sorted(values, reverse=True)  # It learns.


def test_a_loss_that_no_longer_falls_ends_the_training(phantom_root, tmp_path, monkeypatch):
    losses = iter([5.0, 4.0, 3.999, 4.5, 3.9, 4.0, 4.0, 4.0, 1.0])
    monkeypatch.setattr(training_end, "held_back_loss", lambda *_: next(losses))
    end = TrainingEnd(patience=3)
    fit(phantom_root, tmp_path, end, steps=1000)
    # 3.999 is not a thousandth below 4, and 3.9 is.
    assert [loss for _, loss in end.losses] == [5.0, 4.0, 3.999, 4.5, 3.9, 4.0, 4.0, 4.0]
    assert (end.ends, end.reasons) == ([16], [LOSS])


def test_each_phase_ends_by_itself_and_has_its_share_of_the_time(phantom_root, tmp_path, monkeypatch):
    clock = iter(range(1000))  # A second passes with each batch.
    monkeypatch.setattr(training_end, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    end = TrainingEnd(seconds=10)
    module = fit(phantom_root, tmp_path, end, hold=False, steps=1000, phases=2)
    assert module.phase == 2
    assert end.reasons == [TIME, TIME]
    assert end.ends == [5, 10]


def test_a_phase_that_had_its_steps_is_told_from_one_whose_time_was_over(phantom_root, tmp_path):
    end = TrainingEnd()
    fit(phantom_root, tmp_path, end, hold=False, steps=4, phases=2)
    assert end.reasons == [STEPS, STEPS]
    assert end.seen == 8


def test_a_repeated_run_ends_where_the_one_before_did(phantom_root, tmp_path, monkeypatch):
    monkeypatch.setattr(training_end, "held_back_loss", lambda *_: 1.0)  # It never falls.
    end = TrainingEnd(ends=[2, 19], patience=1)
    fit(phantom_root, tmp_path, end, steps=1000, phases=2)
    assert (end.ends, end.reasons) == ([2, 19], [REPEATED, REPEATED])


@pytest.mark.slow
def test_models_of_anomalib_end_too(phantom_root, tmp_path, monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **facts: create(*args, **{**facts, "pretrained": False}))
    model = get_model("Stfpm", backbone="resnet18", visualizer=False, evaluator=False)
    data = small_phantom(phantom_root, modality="wli")
    end = TrainingEnd(hold_back(data, 0.25), patience=2)
    Engine(callbacks=[end], default_root_dir=tmp_path, limit_val_batches=0, max_epochs=3, **QUIET).fit(
        model, datamodule=data
    )
    assert end.reasons[0] in {STEPS, LOSS}
    assert len(end.losses) == end.seen / 2


def test_measuring_a_loss_changes_nothing(phantom_root, tmp_path):
    """Neither statistics of batch normalisation nor what is drawn next."""
    data = small_phantom(phantom_root, modality="wli")
    held = hold_back(data)
    module = get_model("AutoEncoder", image_size=(32, 32), steps=2, visualizer=False)
    Engine(default_root_dir=tmp_path, limit_val_batches=0, **QUIET).fit(module, datamodule=data)
    held.dataset.augmentations = data.train_data.augmentations
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    first, second = (held_back_loss(module, held) for _ in range(2))
    assert torch.rand(()) == expected
    assert first == second > 0
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True, msg=name)


def test_held_back_images_are_not_trained_on_and_others_are_read_once(phantom_root):
    data = small_phantom(phantom_root, modality="wli")
    data.prepare_data()
    data.setup("fit")
    all_paths = set(data.train_data.item_paths())
    held = hold_back(data, 0.25)
    apart = [set(held.dataset.item_paths()), set(data.train_data.item_paths())]
    assert [len(part) for part in apart] == [3, 9]
    assert apart[0] | apart[1] == all_paths
    again = hold_back(small_phantom(phantom_root, modality="wli"), 0.25)
    assert again.dataset.item_paths() == held.dataset.item_paths()
    data.setup("fit")  # As the trainer does it.
    assert isinstance(data.train_data, KeptImages)
    first = data.train_data[0]
    assert data.train_data[0] is first
    data.train_data.augmentations = torch.nn.Identity()
    assert data.train_data[0] is not first
    with pytest.raises(AttributeError):
        _ = data.train_data.nothing


def test_the_clock_starts_with_the_training():
    end = TrainingEnd(seconds=1)
    started = end._started
    time.sleep(0.01)
    end.on_fit_start(Trainer(accelerator="cpu", logger=False), None)
    assert end._started > started
