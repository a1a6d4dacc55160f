"""A stream of frames through an exported student."""

import logging

import numpy as np
import openvino
import pytest
import torch
from torchvision.transforms.v2 import functional

from anomalib_memd.deployment.metadata import ModelFileError
from anomalib_memd.deployment.stream import FrameStream
from anomalib_memd.modality import Branch
from tests.conftest import deployable_memd


@pytest.fixture(scope="module")
def detector():
    return deployable_memd().deployed(Branch.WLI)


@pytest.fixture(scope="module")
def exported(detector, tmp_path_factory):
    return detector.to_openvino(tmp_path_factory.mktemp("student"))


@pytest.fixture
def frames():
    colours = np.random.default_rng(0).integers(0, 255, (11, 1, 1, 3))
    noise = np.random.default_rng(1).integers(-40, 40, (11, 50, 44, 3))
    return list((colours + noise).clip(0, 255).astype(np.uint8))


def scores_of(detector, frames):
    images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return detector(images).pred_score.numpy()


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("requests", [1, 3, None])
def test_predictions_come_in_the_order_of_the_frames(detector, exported, frames, batch_size, requests):
    expected = scores_of(detector, frames)
    assert len(np.unique(expected.round(4))) == len(frames)
    found = list(FrameStream(exported, "rgb", batch_size, requests)(iter(frames)))
    np.testing.assert_allclose([p.score for p in found], expected, atol=1e-5)
    assert [p.label for p in found] == [bool(score >= 0.5) for score in expected]
    assert found[0].anomaly_map.shape == found[0].mask.shape == (64, 64)


@pytest.mark.parametrize("size", [(301, 233), (64, 64), (64, 500), (20, 30)])
def test_frames_of_any_size_are_judged_as_in_training(detector, exported, size):
    frames = list(np.random.default_rng(2).integers(0, 256, (3, *size, 3), dtype=np.uint8))
    found = list(FrameStream(exported, "rgb")(frames))
    np.testing.assert_allclose([p.score for p in found], scores_of(detector, frames), atol=1e-5)


def test_colour_order_and_number_format(detector, exported, frames):
    expected = scores_of(detector, frames)
    for order, given in (
        ("bgr", [frame[..., ::-1] for frame in frames]),
        ("rgb", [frame / 255 for frame in frames]),
    ):
        found = [p.score for p in FrameStream(exported, order)(given)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    wrong = [p.score for p in FrameStream(exported, "bgr")(frames)]
    assert np.abs(wrong - expected).max() > 1e-3


def test_an_endless_stream_is_read_as_it_is_asked_for(exported, frames):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield frames[0]

    stream = FrameStream(exported, "rgb", batch_size=2, requests=3)(endless())
    for asked in range(1, 30):
        next(stream)
        assert read <= asked + 2 * (3 + 1)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.full((8, 8, 3), np.nan), "Frame 3 is not finite"),
        (np.full((8, 8, 3), 200.0), "Frame 3 has values"),
        (np.zeros((8, 8), np.uint8), "Frame 3 has the shape"),
        (np.zeros((8, 8, 3), np.int32), "Frame 3 is not finite or of type int32"),
    ],
)
def test_a_bad_frame_is_named_and_those_before_are_not_lost(exported, frames, frame, message):
    found = []
    with pytest.raises(ValueError, match=message) as caught:
        found.extend(FrameStream(exported, "rgb")([*frames[:3], frame]))
    assert "model.xml" in str(caught.value)
    # extend() takes nothing from an iterator that raises, so once more one by one.
    stream = FrameStream(exported, "rgb")([*frames[:3], frame])
    assert len([next(stream) for _ in range(3)]) == 3


def test_frames_are_brought_to_a_static_shape(detector, frames, tmp_path):
    path = detector.to_openvino(tmp_path, input_size=(50, 44), onnx_kwargs={"batch_size": 2})
    batch = openvino.Core().read_model(path).input(0).shape[0]
    stream = FrameStream(path, "rgb", batch_size=batch + 3)
    assert stream.batch_size == batch
    # A number of frames that leaves the last batch short, unless it is of one.
    found = [prediction.score for prediction in stream(frames[: 2 * batch + 1])]
    np.testing.assert_allclose(found, scores_of(detector, frames[: 2 * batch + 1]), atol=1e-5)
    large = np.random.default_rng(2).integers(0, 256, (3, 90, 70, 3), dtype=np.uint8)
    resized = functional.resize(torch.from_numpy(large).permute(0, 3, 1, 2).float() / 255, [50, 44], antialias=True)
    with torch.inference_mode():
        expected = detector(resized).pred_score.numpy()
    np.testing.assert_allclose([p.score for p in stream(iter(large))], expected, atol=1e-5)


def test_the_other_modality_is_noticed_once(exported, caplog):
    greenish = [np.full((16, 16, 3), (90, 100, 70), np.uint8)] * 5
    with caplog.at_level(logging.WARNING):
        list(FrameStream(exported, "rgb")([np.zeros((16, 16, 3), np.uint8), *greenish]))
    (record,) = caplog.records
    assert "from frame 1 on" in record.message
    assert "look like NBI" in record.message


@pytest.mark.slow
def test_damaged_and_unfit_files_are_named(exported, tmp_path):
    for name in ("model.xml", "model.bin"):
        (tmp_path / name).write_bytes((exported.parent / name).read_bytes())
    (tmp_path / "model.bin").unlink()
    with pytest.raises(ModelFileError, match=r"model\.xml"):
        FrameStream(tmp_path / "model.xml", "rgb")
    (tmp_path / "model.xml").write_bytes(exported.read_bytes()[:500])
    with pytest.raises(ModelFileError, match=r"model\.xml"):
        FrameStream(tmp_path / "model.xml", "rgb")
    teacher = deployable_memd().deployed(Branch.TEACHER).to_onnx(tmp_path)
    with pytest.raises(ModelFileError, match="teacher"):
        FrameStream(teacher, "rgb")
    with pytest.raises(ValueError, match="at least 1"):
        FrameStream(exported, "rgb", batch_size=0)
