"""How long a job trains."""

import json
from dataclasses import replace

import pytest
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from anomalib_memd.benchmark.config import BenchmarkConfigError, Method
from anomalib_memd.benchmark.limits import TrainingLimit, training_limit
from anomalib_memd.benchmark.task import Task, run_folder
from anomalib_memd.cli.benchmark import benchmark


def test_a_job_may_train_as_long_as_another_method_did(tmp_path):
    def seconds(method, modality):
        given = Method(method, "Stfpm", max_epochs=9)
        return training_limit(Task(given, "set", {}, modality, 0, tmp_path, max_time="MEMD")).seconds

    with pytest.raises(RuntimeError, match="Rival may train as long as MEMD, which has not finished on set"):
        seconds("Rival", "wli")
    for seed, took in enumerate([30, 20]):
        folder = run_folder(tmp_path, "set", "MEMD", "paired", seed)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"modality": "paired", "training_seconds": took}))
    assert seconds("Rival", "wli") == seconds("Rival", "nbi") == 15
    assert seconds("Rival", "paired") == 30


def test_a_repeated_run_ends_after_the_last_batch(tmp_path):
    own = Task(Method("Rival", "Stfpm", max_epochs=9), "set", {}, "wli", 0, tmp_path / "again")
    assert training_limit(own).batches is training_limit(own).seconds is None
    assert training_limit(replace(own, max_time=0)).seconds is None
    repeating = replace(own, repeats=str(tmp_path / "before"))
    with pytest.raises(RuntimeError, match=r"result.json does not say where the training of Rival ended"):
        training_limit(repeating)
    folder = run_folder(tmp_path / "before", "set", "Rival", "wli", 0)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"batches": 17}))
    assert training_limit(repeating).batches == 17


def trained(tmp_path, limit):
    class Validated(BoringModel):
        validations = 0

        def on_validation_epoch_end(self):
            self.validations += 1

    model = Validated()
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=10, limit_val_batches=1, num_sanity_val_steps=0,
        callbacks=[limit], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model)
    assert limit.seen == trainer.global_step
    return limit.seen, model.validations


@pytest.mark.parametrize(("last", "seen", "validations"), [(None, 20, 2), (7, 7, 0), (10, 10, 0), (13, 13, 2)])
def test_training_ends_after_the_last_batch_validated_where_there_is_something_to_choose(
    tmp_path, last, seen, validations
):
    assert trained(tmp_path, TrainingLimit(batches=last)) == (seen, validations)


def test_training_ends_when_its_time_is_over(tmp_path):
    assert trained(tmp_path, TrainingLimit(seconds=1e-6)) == (1, 0)
    assert trained(tmp_path, TrainingLimit(seconds=1000)) == (20, 2)


def test_a_run_is_not_repeated_into_itself(tmp_path):
    with pytest.raises(BenchmarkConfigError, match="cannot be repeated into itself; name another folder"):
        benchmark(output=tmp_path, repeat=tmp_path / "." / "")
