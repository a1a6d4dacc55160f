"""Scores of folders: the table, resuming, pictures, and every kind of model file."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage.measure import label

from anomalib_memd import Branch, Modality
from anomalib_memd.data.tissue import render
from anomalib_memd.deployment.detector import DeployedDetector
from anomalib_memd.deployment.metadata import ModelFileError
from anomalib_memd.inference import load_judge
from anomalib_memd.inference import score as module
from anomalib_memd.inference.judge import Seen
from anomalib_memd.inference.judged import judge_frames
from anomalib_memd.inference.regions import SMALLEST, draw_prediction, find_boxes
from anomalib_memd.inference.score import score
from anomalib_memd.inference.sources import Frame
from tests.conftest import deployable_memd

from .conftest import RednessJudge

RED, GREEN = (240, 60, 60), (40, 200, 120)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "frames"
    root.mkdir()
    for number in range(6):
        pixels = np.full((16, 24, 3), RED if number % 2 else (120, 60, 60), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    Image.fromarray(np.full((16, 24, 3), GREEN, dtype=np.uint8)).save(root / "7 narrow.png")
    (root / "8.png").write_bytes(b"broken")
    return root


@pytest.fixture
def known(monkeypatch, tmp_path, judge):
    """Model files are taken for the judge whose answers are known."""
    judge.path = tmp_path / "model.xml"
    judge.path.write_text("model")
    monkeypatch.setattr(module, "load_judge", lambda _: judge)
    return judge


def read(output):
    return pd.read_csv(output / "scores.csv", keep_default_na=False)


def test_a_line_a_frame(folder, known, tmp_path, capsys):
    score(known.path, str(folder), tmp_path / "out")
    table = read(tmp_path / "out")
    assert table.path.tolist() == [str(path) for path in sorted(folder.iterdir())]
    assert table.label.tolist() == ["normal", "abnormal"] * 3 + ["normal", ""]
    assert table.modality.tolist() == ["wli"] * 6 + ["nbi", ""]
    assert table.recognised.tolist() == table.modality.tolist()
    assert set(table.threshold[:7].astype(float)) == {0.5}
    assert json.loads(table.boxes[1]) == [[0, 0, 24, 16]]
    assert "not an image" in table.error[7]
    assert "3 abnormal, 4 normal, 1 errors" in capsys.readouterr().out


def test_a_run_that_was_cut_off_is_gone_on_with(folder, known, tmp_path):
    score(known.path, str(folder), tmp_path / "whole")
    score(known.path, str(folder), tmp_path / "cut")
    whole = (tmp_path / "whole" / "scores.csv").read_bytes()
    for size in (0, 5, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        (tmp_path / "cut" / "scores.csv").write_bytes(whole[:size])
        known.seen.clear()
        score(known.path, str(folder), tmp_path / "cut")
        assert (tmp_path / "cut" / "scores.csv").read_bytes() == whole
        assert len(known.seen) == 7 - min(7, max(0, whole[:size].count(b"\n") - 1))


def test_scores_of_another_model_or_light_are_not_mixed(folder, known, tmp_path):
    score(known.path, str(folder), tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds scores with another modality; give another --output"):
        score(known.path, str(folder), tmp_path / "out", "wli")
    known.path.write_text("another")
    with pytest.raises(ValueError, match=r"another model"):
        score(known.path, str(folder), tmp_path / "out")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "scores.csv").write_text("mine")
    with pytest.raises(ValueError, match="not of this command"):
        score(known.path, str(folder), tmp_path / "foreign")
    assert (tmp_path / "foreign" / "scores.csv").read_text() == "mine"


def test_a_given_modality_is_that_of_all_frames(folder, known, tmp_path, capsys):
    score(known.path, str(folder), tmp_path / "out", "wli")
    assert set(known.seen) == {Modality.WLI}
    assert "1 frames look like the other modality" in capsys.readouterr().out
    known.thresholds = {Modality.NBI: 0.5}
    with pytest.raises(ModelFileError, match="judges NBI, not WLI"):
        score(known.path, str(folder), tmp_path / "other", "wli")


@pytest.mark.parametrize(
    ("overlays", "limit", "number"), [("none", 9, 0), ("abnormal", 9, 3), ("all", 9, 7), ("all", 2, 2)]
)
def test_pictures_are_of_what_is_wanted_and_not_too_many(folder, known, tmp_path, overlays, limit, number):
    for _ in range(2):  # Nor more of them the second time.
        score(known.path, str(folder), tmp_path / "out", overlays=overlays, overlay_limit=limit)
    pictures = sorted((tmp_path / "out" / "overlays").glob("*.jpg"))
    assert len(pictures) == number
    assert all(Image.open(path).size == (24, 16) for path in pictures)


def test_parquet_holds_the_same(folder, known, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    score(known.path, str(folder), tmp_path / "out", table="parquet")
    table = parquet.read_table(tmp_path / "out" / "scores.parquet").to_pandas()
    expected = read(tmp_path / "out")
    assert table.score[:7].tolist() == expected.score[:7].astype(float).tolist()
    assert np.isnan(table.score[7])
    assert table.path.tolist() == expected.path.tolist()


def test_nothing_is_written_where_nothing_can_be_read(known, tmp_path):
    with pytest.raises(FileNotFoundError):
        score(known.path, str(tmp_path / "none"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(RuntimeError, match="None of 1 files could be read"):
        score(known.path, str(tmp_path / "a.png"), tmp_path / "out")


def test_memory_does_not_grow_with_the_number_of_frames(judge):
    """What waits is bounded: no more is read than a few frames ahead."""
    read_so_far = []

    def frames():
        for number in range(1000):
            read_so_far.append(number)
            yield Frame(str(number), np.zeros((4, 4, 3), dtype=np.uint8))

    judged = judge_frames(judge, frames(), None)
    for number, _ in zip(range(20), judged, strict=False):
        assert len(read_so_far) <= number + 2


@given(arrays(bool, st.tuples(st.integers(4, 40), st.integers(4, 40))), st.integers(1, 4), st.integers(1, 4))
def test_boxes_enclose_the_regions(mask, down, across):
    size = (mask.shape[0] * down, mask.shape[1] * across)
    boxes = find_boxes(mask, size)
    regions = label(mask)
    large = [number for number in range(1, regions.max() + 1) if (regions == number).sum() >= SMALLEST * mask.size]
    assert len(boxes) == len(large)
    covered = np.zeros(size, dtype=bool)
    for box in boxes:
        covered[box.top : box.bottom, box.left : box.right] = True
    assert covered[np.kron(np.isin(regions, large), np.ones((down, across), dtype=bool))].all()


def test_normal_tissue_keeps_its_colours():
    image = np.full((8, 8, 3), 90, dtype=np.uint8)
    (prediction,) = RednessJudge()([Seen(image, Modality.WLI)])
    flat = prediction._replace(anomaly_map=np.zeros((4, 4)), mask=np.zeros((4, 4), dtype=bool))
    np.testing.assert_array_equal(draw_prediction(image, flat), image)
    hot = flat._replace(anomaly_map=np.ones((4, 4)))
    assert (draw_prediction(image, hot) != image).any()


@pytest.fixture(scope="module")
def frames():
    """Frames of both modalities, of two sizes."""
    found = []
    for seed, size in ((0, 64), (1, 80), (2, 64)):
        for modality, image in render(size, seed)[0].items():
            found.append(Seen((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), modality))
    return found


@pytest.mark.parametrize(
    "kind",
    ["openvino", *(pytest.param(k, marks=pytest.mark.slow) for k in ("onnx", "torch", "torchscript", "torch_export"))],
)
def test_every_export_judges_as_its_checkpoint_does(checkpoint, frames, tmp_path, kind, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    whole = load_judge(checkpoint)
    assert set(whole.thresholds) == set(Modality)
    expected = dict(zip(range(len(frames)), whole(frames), strict=True))
    student: DeployedDetector = deployable_memd().deployed(Modality.NBI)
    judge = load_judge(getattr(student, f"to_{kind}")(tmp_path))
    assert judge.thresholds == {Modality.NBI: pytest.approx(whole.thresholds[Modality.NBI], abs=1e-6)}
    mine = [number for number, frame in enumerate(frames) if frame.modality is Modality.NBI]
    for number, found in zip(mine, judge(frames[n] for n in mine), strict=True):
        assert found.score == pytest.approx(expected[number].score, abs=5e-3)
        np.testing.assert_allclose(found.anomaly_map, expected[number].anomaly_map, atol=5e-3)


@pytest.mark.slow
def test_a_model_of_one_size_takes_any(frames, tmp_path):
    path = deployable_memd().deployed(Modality.WLI).to_openvino(tmp_path, input_size=(64, 64))
    found = list(load_judge(path)(frames))
    assert len(found) == len(frames)


def test_what_is_no_student_is_refused(tmp_path):
    teacher = deployable_memd().deployed(Branch.TEACHER).to_torchscript(tmp_path)
    with pytest.raises(ModelFileError, match="is the teacher"):
        load_judge(teacher)
    with pytest.raises(ModelFileError, match="no such exported model"):
        load_judge(tmp_path / "none.xml")
    with pytest.raises(FileNotFoundError):
        load_judge(tmp_path / "none.ckpt")
