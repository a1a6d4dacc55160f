"""Exported detectors against the model they come from."""

import errno
import json

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.deploy import CompressionType, OpenVINOInferencer, TorchInferencer

from anomalib_memd import MEMD
from anomalib_memd.deployment import AS_EXPORTED
from anomalib_memd.deployment.metadata import ModelFileError, read_metadata
from anomalib_memd.deployment.quantisation import after_embedding, calibration_images
from anomalib_memd.modality import Branch, Modality
from tests.conftest import deployable_memd, small_memd, small_phantom

SIZE = (48, 40)


@pytest.fixture(scope="module")
def model():
    return deployable_memd()


@pytest.fixture
def images():
    return [torch.rand(3, 3, *SIZE) * torch.tensor([0.3, 0.6, 1.0]).view(3, 1, 1, 1) for _ in Modality]


def expected(model, branch, images):
    """What the training side makes of the images: torchvision's resize, raw predictions, anomalib's normalisation."""
    modalities = list(Modality) if branch is Branch.TEACHER else [Modality(branch.value)]
    with torch.inference_mode():
        features = {
            m: model.model.embedding(model.pre_processor.transform(image))
            for m, image in zip(modalities, images, strict=False)
        }
        raw = model.model.judge(branch, features, torch.Size(model.input_size))
        return model.post_processor.branch(branch)(raw)


def given(branch, images):
    return images if branch is Branch.TEACHER else images[:1]


def check(found, reference):
    for name, value in reference._asdict().items():
        np.testing.assert_allclose(np.asarray(found[name], dtype=np.float32), value.float().numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Exports the detector of a branch in a format, once."""
    root, files = tmp_path_factory.mktemp("exports"), {}

    def export(branch, kind):
        if (branch, kind) not in files:
            files[branch, kind] = getattr(model.deployed(branch), f"to_{kind}")(root / branch)
            assert not list((root / branch).glob(".export-*"))
        return files[branch, kind]

    return export


@pytest.mark.slow
@pytest.mark.parametrize("branch", list(Branch))
def test_every_format_gives_the_same(model, exported, branch, images):
    reference = expected(model, branch, images)
    assert reference.pred_score.std() > 0.001
    inputs = given(branch, images)

    with torch.inference_mode():
        check(model.deployed(branch)(*inputs)._asdict(), reference)
        check(torch.jit.load(exported(branch, "torchscript"))(*inputs), reference)
        check(torch.export.load(exported(branch, "torch_export")).module()(*inputs), reference)
    arrays = [image.numpy() for image in inputs]
    session = onnxruntime.InferenceSession(exported(branch, "onnx"))
    feed = dict(zip([node.name for node in session.get_inputs()], arrays, strict=True))
    outputs = [node.name for node in session.get_outputs()]
    check(dict(zip(outputs, session.run(outputs, feed), strict=True)), reference)
    network = openvino.Core().compile_model(exported(branch, "openvino"), "CPU", AS_EXPORTED)
    found = network(arrays)
    check({name: found[name] for name in reference._fields}, reference)
    if branch is Branch.TEACHER:
        assert [port.any_name for port in network.inputs] == ["wli", "nbi"]


@pytest.mark.slow
def test_anomalibs_inferencers_load_exports_of_both_students(model, exported, images, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    monkeypatch.chdir(tmp_path)
    for branch in (Branch.WLI, Branch.NBI):
        reference = expected(model, branch, images)
        for inferencer in (
            OpenVINOInferencer(exported(branch, "openvino"), device="CPU", config=AS_EXPORTED),
            OpenVINOInferencer(exported(branch, "onnx"), device="CPU", config=AS_EXPORTED),
            TorchInferencer(exported(branch, "torch"), device="cpu"),
        ):
            scores = [float(np.squeeze(inferencer.predict(image).pred_score)) for image in images[0]]
            np.testing.assert_allclose(scores, reference.pred_score.numpy(), atol=1e-5)


def test_a_file_holds_nothing_that_inference_does_not_use(model, exported):
    detector = model.model.student(Modality.NBI)
    student = sum(p.numel() for p in detector.parameters())
    backbone = sum(p.numel() for p in model.model.embedding.parameters())
    kept = torch.load(exported(Branch.NBI, "torch"), weights_only=False)["model"]
    assert sum(p.numel() for p in kept.parameters()) == student + backbone
    assert not any(p.requires_grad for p in kept.parameters())
    # The backbone looks at two sizes of the image, and is written once.
    values = exported(Branch.NBI, "openvino").with_suffix(".bin").stat().st_size / 4
    components = sum(d.components.numel() for d in detector.location_distances)
    banks = sum(d.bank.numel() for d in detector.image_distances)
    # Batch normalisation is folded into convolutions, statistics are added.
    assert values < 1.02 * (student + backbone + components + banks)


def test_static_batch_and_size(model, tmp_path):
    path = model.deployed(Branch.WLI).to_openvino(tmp_path, input_size=(64, 64), onnx_kwargs={"batch_size": 2})
    assert list(openvino.Core().read_model(path).input(0).shape) == [2, 3, 64, 64]


@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino", "torchscript", "torch_export"])
def test_metadata_travels(model, exported, kind, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    found = read_metadata(exported(Branch.NBI, kind))
    assert found == model.deployed(Branch.NBI).metadata
    assert found.branch is Branch.NBI
    assert found.classes == ("cecum", "colon")
    assert (found.threshold, found.image_size) == (0.5, (64, 64))
    assert found.raw_threshold == pytest.approx(0.1)


def test_files_without_metadata_are_named(tmp_path):
    for name, content in {"a.xml": "<net/>", "b.onnx": "x", "c.pt2": "x", "d.ts": "x"}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ModelFileError, match=name):
            read_metadata(tmp_path / name)
    with pytest.raises(ModelFileError, match="absent"):
        read_metadata(tmp_path / "absent.xml")


@pytest.mark.slow
def test_half_precision_halves_the_file(model, exported, images, tmp_path):
    reference, full = expected(model, Branch.WLI, images), exported(Branch.WLI, "openvino")
    half = model.deployed(Branch.WLI).to_openvino(tmp_path, compression_type=CompressionType.FP16)
    assert half.with_suffix(".bin").stat().st_size < 0.6 * full.with_suffix(".bin").stat().st_size
    found = openvino.Core().compile_model(half, "CPU", AS_EXPORTED)(images[0].numpy())
    np.testing.assert_allclose(found["pred_score"], reference.pred_score.numpy(), atol=5e-3)


@pytest.mark.parametrize("branch", [Branch.NBI, Branch.TEACHER])
@pytest.mark.slow
def test_quantisation_leaves_what_is_solved_for_alone(model, branch, phantom_root, tmp_path):
    data = small_phantom(phantom_root)
    path = model.deployed(branch).to_openvino(tmp_path, compression_type=CompressionType.INT8_PTQ, datamodule=data)
    graph = openvino.Core().read_model(path)
    convolutions = [op for op in graph.get_ops() if op.get_type_name() == "Convolution"]
    sources = {op.get_output_partial_shape(0)[1].get_length(): _is_quantised(op) for op in convolutions}
    assert not sources[1]
    assert sources[64]
    exact = set(after_embedding(graph))
    assert any(op.get_type_name() == "ReduceSum" for op in graph.get_ops() if op.get_friendly_name() in exact)
    # What is averaged may be quantised for the backbone, what is made of the averages is for the networks alone.
    solved = [op for op in graph.get_ops() if op.get_friendly_name() in exact and op.get_type_name() != "AvgPool"]
    assert not [op for op in solved if op.get_type_name() != "FakeQuantize" and _is_quantised(op)]
    item = data.train_data[0]
    inputs = [item.image, item.nbi_image] if branch is Branch.TEACHER else [item.nbi_image]
    compiled = openvino.Core().compile_model(graph, "CPU", AS_EXPORTED)
    score = compiled([image[None].numpy() for image in inputs])["pred_score"]
    images = [image[None] for image in inputs]
    assert float(score[0]) == pytest.approx(float(expected(model, branch, images).pred_score[0]), abs=0.1)


def _is_quantised(operation):
    return any(port.get_source_output().get_node().get_type_name() == "FakeQuantize" for port in operation.inputs())


def test_calibration_needs_images_of_the_right_kind(phantom_root, tmp_path):
    with pytest.raises(ValueError, match="--data"):
        calibration_images(None, [Modality.WLI])
    with pytest.raises(ValueError, match="modality=paired"):
        calibration_images(small_phantom(phantom_root, modality="wli"), list(Modality))
    pairs = calibration_images(small_phantom(phantom_root), list(Modality))
    assert len(pairs) == 12
    assert {name: array.shape for name, array in pairs[0].items()} == {"wli": (1, 3, 64, 64), "nbi": (1, 3, 64, 64)}


def test_an_untrained_model_is_not_exported(tmp_path):
    model = small_memd()
    with pytest.raises(RuntimeError, match="student"):
        model.to_onnx(tmp_path)
    with pytest.raises(RuntimeError, match="teacher"):
        model.deployed(Branch.TEACHER)
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = model.to_torch(tmp_path)
    before = path.read_bytes()

    def fail(content, file):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        model.to_torch(tmp_path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_the_modality_of_a_model_is_that_of_what_it_loads(model, tmp_path):
    narrow = small_memd(modality="nbi")
    assert isinstance(narrow, MEMD)
    assert narrow.name == "MEMD"
    from lightning import Trainer  # noqa: PLC0415

    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    for kind, modality in ((type(narrow), Modality.NBI), (MEMD, Modality.WLI)):
        loaded = kind.load_from_checkpoint(tmp_path / "model.ckpt")
        assert loaded.model.modality is modality
        assert loaded.deployed().metadata.branch.value == modality.value
        assert len(loaded.deployed().metadata.checkpoint) == 64
    assert MEMD.load_from_checkpoint(tmp_path / "model.ckpt", modality="nbi").model.modality is Modality.NBI


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "x.ckpt").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        MEMD.load_from_checkpoint(tmp_path / "x.ckpt")
