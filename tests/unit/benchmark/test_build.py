"""The model and the images of a job."""

from pathlib import Path

import torch

from anomalib_memd.benchmark import build
from anomalib_memd.benchmark.config import Method
from anomalib_memd.benchmark.task import Task
from anomalib_memd.components.backbones import build_backbone


def test_a_model_that_knows_architectures_takes_weights(monkeypatch):
    source = build_backbone("resnet18", ["layer1", "layer2", "layer3"], pre_trained=False)
    torch.nn.init.constant_(source.feature_extractor.conv1.weight, 0.25)
    asked = []
    monkeypatch.setattr(build, "build_backbone", lambda name, layers: asked.append((name, layers)) or source)
    options = {"init_args": {"backbone": "resnet18", "pre_trained": False}, "weights": "resnet18.some_in1k"}
    own = Task(Method("RD", "ReverseDistillation", **options), "set", {}, "wli", 0, Path("out"))
    model = build.build_model(own)
    assert asked == [("resnet18.some_in1k", ["layer1", "layer2", "layer3"])]
    assert torch.equal(model.model.encoder.feature_extractor.conv1.weight, source.feature_extractor.conv1.weight)


def test_a_translator_is_built_from_its_class(tmp_path):
    translator = {"class_path": "anomalib_memd.SpectralNBI", "init_args": {"curve": 1.5}}
    method = Method("Variant", "MEMD", paired=True, data_args={"translator": translator})
    data = {"set": {"class_path": "Kvasir", "init_args": {"root": str(tmp_path)}}}
    datamodule = build.build_datamodule(Task(method, "set", data, "paired", 0, Path("out")), "set")
    assert datamodule.translator.curve == 1.5


def test_every_split_has_images_of_its_own(tmp_path):
    sizes = {"train": 4, "val": 4, "test": 6, "image_size": 32, "num_workers": 0}
    init_args = {"root": str(tmp_path / "data"), **sizes}
    data = {"set": {"class_path": "Phantom", "init_args": init_args, "development": {"phantom_seed": 7, "test": 8}}}
    task = Task(Method("Variant", "AutoEncoder"), "set", data, "wli", 0, Path("out"))
    images = {}
    for split in ("val", "dev", "test"):
        datamodule = build.tested_datamodule(task, "set", split)
        datamodule.prepare_data()
        datamodule.setup("test")
        images[split] = {str(path) for path in datamodule.test_data.samples.image_path}
    assert [len(paths) for paths in images.values()] == [8, 16, 12]
    assert len(set.union(*images.values())) == 36
