"""What a job is known by, and the model it builds."""

import json
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anomalib_memd.benchmark import job as jobs
from anomalib_memd.benchmark.config import Method
from anomalib_memd.benchmark.job import BenchmarkJob
from anomalib_memd.benchmark.task import Task, run_folder
from anomalib_memd.components.backbones import build_backbone
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


def test_a_model_that_knows_architectures_takes_weights(monkeypatch):
    source = build_backbone("resnet18", ["layer1", "layer2", "layer3"], pre_trained=False)
    torch.nn.init.constant_(source.feature_extractor.conv1.weight, 0.25)
    asked = []
    monkeypatch.setattr(jobs, "build_backbone", lambda name, layers: asked.append((name, layers)) or source)
    options = {"init_args": {"backbone": "resnet18", "pre_trained": False}, "weights": "resnet18.some_in1k"}
    own = Task(Method("RD", "ReverseDistillation", **options), "set", {}, "wli", 0, Path("out"))
    model = BenchmarkJob(own)._model()
    assert asked == [("resnet18.some_in1k", ["layer1", "layer2", "layer3"])]
    assert torch.equal(model.model.encoder.feature_extractor.conv1.weight, source.feature_extractor.conv1.weight)


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
    arguments = {"image_size": (32, 32), "steps": 2}
    method = Method("AE", "AutoEncoder", init_args=arguments, learns=True, precision="bf16-mixed")
    sizes = {"train": 8, "val": 4, "test": 4, "image_size": 64, "num_workers": 0}
    data = {"set": {"class_path": "Phantom", "init_args": {"root": str(tmp_path / "data"), **sizes}}}
    (tmp_path / "work").mkdir()
    BenchmarkJob(Task(method, "set", data, "wli", 0, tmp_path, latency=False))._run(tmp_path / "work", None)
    # Gradients in 16 bits; the held-back loss, which has none, and the scores in 32.
    assert set(seen["loss"]) == {(True, True), (False, False)}
    assert set(seen["forward"]) == {(False, False)}
    facts = json.loads((tmp_path / "work/results/result.json").read_text())
    assert facts["precision"] == "bf16-mixed"


def test_a_translator_is_built_from_its_class(tmp_path):
    translator = {"class_path": "anomalib_memd.SpectralNBI", "init_args": {"curve": 1.5}}
    method = Method("Variant", "MEMD", paired=True, data_args={"translator": translator})
    data = {"set": {"class_path": "Kvasir", "init_args": {"root": str(tmp_path)}}}
    datamodule = BenchmarkJob(Task(method, "set", data, "paired", 0, Path("out")))._datamodule("set")
    assert datamodule.translator.curve == 1.5


@pytest.mark.parametrize("name", ["a/b c", "x=1"])
def test_folders_have_plain_names(name):
    assert run_folder(Path("out"), "set", name, "wli", 3).parts[3] == name.replace("/", "_").replace(" ", "_")
