"""How long a job trains."""

import json
from dataclasses import replace

import pytest

from anomalib_memd.benchmark.config import BenchmarkConfigError, Method
from anomalib_memd.benchmark.limits import limit_in_batches, limit_in_time
from anomalib_memd.benchmark.task import Task, run_folder
from anomalib_memd.cli.benchmark import benchmark


def test_a_job_may_train_as_long_as_another_method_did(tmp_path):
    def seconds(method, modality):
        given = Method(method, "Stfpm", learns=True)
        return limit_in_time(Task(given, "set", {}, modality, 0, tmp_path, max_time="MEMD"))

    with pytest.raises(RuntimeError, match="Rival may train as long as MEMD, which has not finished on set"):
        seconds("Rival", "wli")
    for seed, took in enumerate([30, 20]):
        folder = run_folder(tmp_path, "set", "MEMD", "paired", seed)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"modality": "paired", "training_seconds": took}))
    assert seconds("Rival", "wli") == seconds("Rival", "nbi") == 15
    assert seconds("Rival", "paired") == 30


def test_a_repeated_run_ends_after_the_last_batch(tmp_path):
    own = Task(Method("Rival", "Stfpm", learns=True), "set", {}, "wli", 0, tmp_path / "again")
    assert limit_in_batches(own) is limit_in_time(own) is None
    assert limit_in_time(replace(own, max_time=0)) is None
    repeating = replace(own, repeats=str(tmp_path / "before"))
    with pytest.raises(RuntimeError, match=r"result.json does not say where the training of Rival ended"):
        limit_in_batches(repeating)
    folder = run_folder(tmp_path / "before", "set", "Rival", "wli", 0)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"batches": [17, 40], "ended_by": ["loss", "time"]}))
    assert limit_in_batches(repeating) == [17, 40]


def test_a_run_is_not_repeated_into_itself(tmp_path):
    with pytest.raises(BenchmarkConfigError, match="cannot be repeated into itself; name another folder"):
        benchmark(output=tmp_path, repeat=tmp_path / "." / "")
