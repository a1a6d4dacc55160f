"""Command lines that cannot work: each ends with one line that names what is wrong, and writes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from anomalib_memd.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of all kinds that are not what they are taken for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames").mkdir()
    Image.fromarray(np.full((8, 8, 3), 99, dtype=np.uint8)).save(tmp_path / "frames" / "a.png")
    (tmp_path / "empty").mkdir()
    for name in ("a.ckpt", "a.xml", "a.onnx", "a.pt", "a.ts", "a.pt2", "a.mp4", "a.yaml", "a.dcm"):
        (tmp_path / name).write_bytes(b"not what it is called")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "split").mkdir()
    pd.DataFrame({"image": ["a.png"], "label": ["normal"]}).to_csv(tmp_path / "split" / "split.csv", index=False)
    return tmp_path


SCORE = ["score", "--output", "out", "--input", "frames", "--model"]
VIDEO = ["video", "--output", "out", "--input", "a.mp4", "--model"]
CASES = {
    "no model": ([*SCORE, "none.xml"], "none.xml: no such exported model"),
    "no checkpoint": ([*SCORE, "none.ckpt"], "none.ckpt"),
    "a damaged IR": ([*SCORE, "a.xml"], "a.xml: no model that MEMD has exported, or a damaged one"),
    "a damaged ONNX": ([*SCORE, "a.onnx"], "a.onnx: no model that MEMD has exported, or a damaged one"),
    "a module that could run code": ([*SCORE, "a.pt"], "a.pt: a .pt file can run code when it is read"),
    "a damaged TorchScript": ([*SCORE, "a.ts"], "a.ts: no model that MEMD has exported, or a damaged one"),
    "a damaged program": ([*SCORE, "a.pt2"], "a.pt2: no model that MEMD has exported, or a damaged one"),
    "a damaged checkpoint": ([*SCORE, "a.ckpt"], "a.ckpt"),
    "an empty checkpoint": ([*SCORE, "empty.ckpt"], "empty.ckpt"),
    "a foreign checkpoint": ([*SCORE, "other.ckpt"], "other.ckpt"),
    "an image for a model": ([*SCORE, "frames/a.png"], "frames/a.png: no such exported model"),
    "a folder for a model": ([*SCORE, "frames"], "frames: no such exported model"),
    "no input": (["score", "--model", "a.xml", "--input", "none", "--output", "out"], "none: no image and no video"),
    "an empty folder": (["score", "--model", "a.xml", "--input", "empty", "--output", "out"], "empty: no image"),
    "a pattern of nothing": (["score", "--model", "a.xml", "--input", "*.gif", "--output", "out"], r"*.gif: no image"),
    "no video": (["video", "--model", "a.xml", "--input", "none.mp4", "--output", "out"], "none.mp4: no such video"),
    "a damaged video": ([*VIDEO, "a.xml"], "a.mp4: cannot be opened as a video"),
    "a negative time": ([*VIDEO, "a.xml", "--gap", "-1"], "Times are not negative"),
    "no seconds": ([*VIDEO, "a.xml", "--seconds", "0"], "Times are not negative"),
    "no model for the page": (["app", "--model", "none.xml"], "none.xml: no such exported model"),
    "nothing to compare with": (["app", "--model", "a.xml", "--compare", "none.xml"], "a.xml: no model that MEMD"),
    "export of nothing": (["export", "--ckpt", "none.ckpt", "--output", "out"], "none.ckpt"),
    "export of a foreign file": (["export", "--ckpt", "other.ckpt", "--output", "out"], "other.ckpt"),
    "compression of ONNX": (
        ["export", "--ckpt", "a.ckpt", "--formats", '["onnx"]', "--compression", "FP16"],
        "Only OpenVINO knows compression=fp16",
    ),
    "adaptation of nothing": (
        ["adapt", "--ckpt", "none.ckpt", "--normal", "frames", "--output", "b.ckpt"],
        "none.ckpt",
    ),
    "a rate of one": (
        ["adapt", "--ckpt", "a.ckpt", "--normal", "frames", "--output", "b.ckpt", "--false_positive_rate", "1"],
        "above 0 and below 1, got 1",
    ),
    "translation of nothing": (["translate", "--input", "none", "--output", "out"], "none"),
    "a check of nothing": (["check", "--folder", "none"], "none"),
    "a check of half a split": (["check", "--folder", "split"], "split.csv has no column class, split"),
    "a report of nothing": (["report", "--output", "empty"], "empty"),
    "a benchmark of nothing": (["benchmark", "--config", "none.yaml", "--output", "out"], "none.yaml"),
    "a benchmark of no YAML": (["benchmark", "--config", "a.yaml", "--output", "out"], "a.yaml"),
    "an ablation of nothing": (["ablate", "--config", "none.yaml", "--output", "out"], "none.yaml"),
    "a seed of words": (["train", "--seed", "many"], "--seed takes a whole number of at least 0, got 'many'"),
    "a seed of nothing": (["test", "--seed"], "--seed takes a whole number of at least 0, got ''"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_error_is_one_line_that_names_the_way_out(name, folder):
    arguments, message = CASES[name]
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert str(ended.value).startswith("anomalib-memd: "), ended.value
    assert message in str(ended.value)
    assert sorted(folder.rglob("*")) == before


REFUSED = {
    "no command": ["scores"],
    "no option": ["score", "--model", "a.xml"],
    "an unknown option": [*SCORE, "a.xml", "--treshold", "1"],
    "a third light": [*SCORE, "a.xml", "--modality", "uv"],
    "a third table": [*SCORE, "a.xml", "--table", "xlsx"],
    "a half of a picture": [*SCORE, "a.xml", "--overlay_limit", "1.5"],
    "a port of words": ["app", "--model", "a.xml", "--port", "here"],
    "a fourth branch": ["export", "--ckpt", "a.ckpt", "--branches", '["uv"]'],
    "a sixth format": ["export", "--ckpt", "a.ckpt", "--formats", '["coreml"]'],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_command_is_refused_with_its_usage(name, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        main(REFUSED[name])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "usage: anomalib-memd" in said
    assert "error:" in said
    assert not (folder / "out").exists()
