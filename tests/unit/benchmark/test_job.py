"""What a job is known by, and what it leaves."""

import json
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
import torch

from anomalib_memd.benchmark import job as jobs
from anomalib_memd.benchmark.config import Method
from anomalib_memd.benchmark.job import BenchmarkJob
from anomalib_memd.benchmark.task import Task, run_folder
from anomalib_memd.models.autoencoder.kinds import AutoEncoderModel


def task(seed=0, **options):
    return Task(
        Method("Rival", "Padim", **options), "set", {"set": {"class_path": "Phantom"}}, "wli", seed, Path("out")
    )


def test_a_job_is_known_by_what_its_results_depend_on():
    assert task().digest == task(max_epochs=None, weights=None, order=4).digest
    others = [task(seed=1), task(weights="x"), task(max_epochs=3), task(init_args={"backbone": "resnet18"})]
    assert len({task().digest, *(other.digest for other in others)}) == 5
    assert replace(task(), repeats="before").digest != task().digest


def test_a_job_that_was_not_tested_on_test_is_not_finished_for_those_who_open_it(tmp_path):
    own = replace(task(), output=tmp_path, latency=False)
    own.folder.mkdir(parents=True)
    facts = {"digest": own.digest, "splits": ["val", "dev"], "cost": {}}
    (own.folder / "result.json").write_text(json.dumps(facts))
    assert BenchmarkJob(own).run()["status"] == jobs.FINISHED
    opening = BenchmarkJob(replace(own, splits=("val", "dev", "test")))
    assert opening.opens_test
    (own.folder / "result.json").write_text(json.dumps(facts | {"splits": ["val", "dev", "test"]}))
    assert not opening.opens_test
    assert BenchmarkJob(own).run()["status"] == jobs.FINISHED


def test_an_option_at_its_default_leaves_old_results_valid():
    assert task().digest == "b3abe8317bad225c"


def test_a_job_that_was_killed_has_failed(monkeypatch, tmp_path):
    def killed(work, workspace, task_id):
        (workspace / "half").touch()
        raise BrokenProcessPool

    monkeypatch.setattr(jobs, "run_apart", killed)
    own = Task(Method("Rival", "Padim"), "set", {}, "wli", 0, tmp_path)
    assert BenchmarkJob(own).run()["status"] == jobs.FAILED
    (left,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert left == tmp_path / "runs/set/Rival/wli-seed0.error.txt"
    assert "killed" in left.read_text()


SMALL = {"image_size": (32, 32), "steps": 2}


def on_phantom(method, output, splits=("val", "dev")):
    init_args = {"root": str(output / "data"), "train": 8, "val": 4, "test": 4, "image_size": 64, "num_workers": 0}
    data = {"set": {"class_path": "Phantom", "init_args": init_args, "development": {"phantom_seed": 7}}}
    return Task(method, "set", data, "wli", 0, output, latency=False, splits=splits)


def test_a_method_is_trained_in_its_precision_and_tested_in_32_bits(monkeypatch, tmp_path):
    seen = {"loss": [], "forward": []}

    def noting(name):
        original = getattr(AutoEncoderModel, name)

        def noted(model, images):
            seen[name].append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
            weight = model.network.encoder[0].weight
            assert weight.is_contiguous(memory_format=torch.channels_last)
            return original(model, images)

        monkeypatch.setattr(AutoEncoderModel, name, noted)

    noting("loss")
    noting("forward")
    method = Method("AE", "AutoEncoder", init_args=SMALL, learns=True, precision="bf16-mixed")
    (tmp_path / "work").mkdir()
    BenchmarkJob(on_phantom(method, tmp_path))._run(tmp_path / "work", None)
    # Gradients in 16 bits; the held-back loss, which has none, and the scores in 32.
    assert set(seen["loss"]) == {(True, True), (False, False)}
    assert set(seen["forward"]) == {(False, False)}
    facts = json.loads((tmp_path / "work/results/result.json").read_text())
    assert facts["precision"] == "bf16-mixed"


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """Does a job, and gives its scores, its facts and its number of training steps."""
    steps = []
    loss = AutoEncoderModel.loss
    monkeypatch.setattr(AutoEncoderModel, "loss", lambda model, images: steps.append(0) or loss(model, images))

    def attempt(output, splits, *, latency=False):
        method = Method("AE", "AutoEncoder", init_args=SMALL, learns=True)
        job = BenchmarkJob(replace(on_phantom(method, tmp_path / output, splits), latency=latency))
        (tmp_path / output).mkdir(exist_ok=True)
        with TemporaryDirectory(dir=tmp_path / output) as folder:
            steps.clear()
            assert job._attempt(Path(folder), None) == ("", "")
        assert job.is_finished()
        folder = job.task.folder
        return pd.read_csv(folder / "scores.csv"), json.loads((folder / "result.json").read_text()), len(steps)

    return attempt


def test_the_model_that_was_chosen_is_the_one_that_is_tested(attempt, tmp_path):
    chosen, facts, steps = attempt("one", ("val", "dev"))
    assert set(chosen.split) == {"val", "dev"}
    assert steps > 0
    opened, facts_opened, steps = attempt("one", ("val", "dev", "test"))
    assert steps == 0
    pd.testing.assert_frame_equal(opened[opened.split != "test"], chosen)
    assert facts_opened["splits"] == ["val", "dev", "test"]
    assert facts_opened["training_seconds"] == facts["training_seconds"]
    assert set(facts_opened["pixel_metrics"]["set"]) == {"val", "dev", "test"}
    folder = next((tmp_path / "one/runs").rglob("result.json")).parent
    assert (folder / "log.csv").exists()
    assert not (folder / "model.ckpt").exists()
    # As if all had been tested at once.
    at_once, _, steps = attempt("other", ("val", "dev", "test"))
    assert steps > 0
    pd.testing.assert_frame_equal(opened, at_once, rtol=1e-4)


def test_a_model_of_other_software_is_trained_anew(attempt, tmp_path):
    attempt("one", ("val", "dev"))
    file = next((tmp_path / "one/runs").rglob("result.json"))
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"versions": facts["versions"] | {"torch": "2.0"}}))
    opened, facts, steps = attempt("one", ("val", "dev", "test"))
    assert steps > 0
    assert set(opened.split) == {"val", "dev", "test"}
    assert facts["versions"]["torch"] != "2.0"


def test_a_cost_that_is_asked_for_later_takes_no_figure_away(attempt, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "measure_cost", lambda model, temporary: {"parameters": 7})
    attempt("one", ("val", "dev"))
    folder = next((tmp_path / "one/runs").rglob("result.json")).parent
    kept = (folder / "model.ckpt").read_bytes()
    opened, *_ = attempt("one", ("val", "dev", "test"))
    method = Method("AE", "AutoEncoder", init_args=SMALL, learns=True)
    asks = BenchmarkJob(replace(on_phantom(method, tmp_path / "one"), latency=True))
    # The model is gone: its cost stays unknown.
    assert asks.is_finished()
    (folder / "model.ckpt").write_bytes(kept)
    assert not asks.is_finished()
    assert not BenchmarkJob(replace(asks.task, splits=("val", "dev", "test"))).opens_test
    scores, facts, steps = attempt("one", ("val", "dev"), latency=True)
    assert steps == 0
    assert facts["cost"] == {"parameters": 7}
    assert facts["splits"] == ["val", "dev", "test"]
    pd.testing.assert_frame_equal(scores, opened)


@pytest.mark.parametrize("name", ["a/b c", "x=1"])
def test_folders_have_plain_names(name):
    assert run_folder(Path("out"), "set", name, "wli", 3).parts[3] == name.replace("/", "_").replace(" ", "_")
