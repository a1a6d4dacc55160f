"""What a stranger may put into files, names and archives does nothing; see also tests/unit/test_bad_input.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_memd import Modality
from anomalib_memd.benchmark.report import write_report
from tests.conftest import deployable_memd, start
from tests.unit.benchmark.test_tables import rows_of, write_run
from tests.unit.test_bad_input import Marker

TRAP = "<img src=x onerror=alert(1)>.png"


def test_a_numpy_file_with_a_pickle_runs_nothing(tmp_path):
    marker = tmp_path / "was here"
    trap = np.array([Marker(marker)], dtype=object)
    write_run(tmp_path, "MEMD", "paired", 0, rows_of("wli", [0.1, 0.9], [0, 1]))
    folder = tmp_path / "runs/colon/MEMD/paired-seed0"
    for name in ("pictures.npz", "encodings.npz"):
        np.savez(folder / name, **{"image/wli/normal/0": trap})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_report(tmp_path)
    assert not marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["!!python/object/apply:pathlib.Path.touch [{}]", "!!python/object/new:os.system [touch {}]"]
)
@pytest.mark.parametrize("place", ["{}", "model: {}", "data: {}"])
def test_a_configuration_of_anomalib_runs_nothing(tmp_path, text, place):
    marker = tmp_path / "was-here"
    (tmp_path / "config.yaml").write_text(place.format(text.format(marker)))
    done = start("anomalib", tmp_path, "train", "--config", "config.yaml")
    assert done.returncode != 0
    assert not marker.exists()


def test_names_in_a_report_are_shown_and_not_run(tmp_path):
    labels = [0] * 6 + [1] * 6
    scores = np.linspace(0, 1, 12)
    trap = f"</script><!--<script>{TRAP}"
    rows = [
        (detector, f"{trap}{number}", TRAP, label, score)
        for detector in ("wli", "nbi", "teacher")
        for number, (score, label) in enumerate(zip(scores, labels, strict=True))
    ]
    write_run(tmp_path, "MEMD", "paired", 0, rows, group=TRAP)
    folder = tmp_path / "runs/colon/MEMD/paired-seed0"
    facts = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(facts | {"method": f"MEMD {TRAP}"}))
    image = np.zeros((3, 8, 8), dtype=np.uint8)
    stored = {f"image/{detector}/{trap}0": image for detector in ("wli", "nbi", "teacher")}
    stored |= {f"map/{detector}/{trap}0": image[0].astype(np.float16) for detector in ("wli", "nbi", "teacher")}
    np.savez(folder / "pictures.npz", **stored)
    np.savez(folder / "encodings.npz")
    page = write_report(tmp_path).read_text()
    assert "onerror=alert" in page
    assert "<img src=x" not in page
    assert page.count("<script") == page.count("</script>") == 1
    assert "<!--" not in page.replace("<!doctype", "")


@pytest.mark.slow
def test_scoring_writes_below_its_output_alone(tmp_path):
    """Also of files whose names would lead elsewhere, with pictures and a table of every kind."""
    model = deployable_memd().deployed(Modality.WLI).to_torchscript(tmp_path / "model")
    frames = tmp_path / "frames"
    for name in ("%2e%2e%2fa.png", TRAP, "-rf.png", "$(touch x).png", " .png", "a\nb.png", "CON.png"):
        frames.mkdir(exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 90, dtype=np.uint8)).save(frames / name)
    places = {name: tmp_path / name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "work")}
    for place in places.values():
        place.mkdir()
    before = set(tmp_path.rglob("*"))
    command = [Path(sys.executable).with_name("anomalib-memd"), "score", "--model", model, "--input", frames]
    command += ["--output", tmp_path / "out", "--overlays", "all", "--table", "parquet"]
    environment = os.environ | {name: str(place) for name, place in places.items()} | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=places["work"], env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    written = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert len(list((tmp_path / "out/overlays").iterdir())) == 7
    # Libraries keep caches of their own, where the system has told them to.
    elsewhere = {path for path in written if tmp_path / "out" not in path.parents}
    assert not [path for path in elsewhere if "matplotlib" not in str(path)], elsewhere


@pytest.mark.slow
def test_libraries_do_not_tell_that_they_are_used(tmp_path):
    """OpenVINO and NNCF would, and would write an identifier into the home folder."""
    program = """
import socket
def refuse(*_):
    raise SystemExit("asks for another host")
socket.getaddrinfo = socket.create_connection = refuse
import anomalib_memd
import openvino, nncf, gradio
from openvino import convert_model
import torch
convert_model(torch.nn.Linear(2, 1), example_input=torch.zeros(1, 2))
"""
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "intel").exists()


def test_what_checkpoints_are_read_by_is_the_safe_way():
    """No file of the package unpickles, but for the one place that asks for trust."""
    package = Path(__file__).parents[2] / "anomalib_memd"
    found = {
        f"{path.relative_to(package)}: {word}"
        for path in package.rglob("*.py")
        for word in ("weights_only=False", "pickle.load", "allow_pickle=True", "yaml.load(", "yaml.unsafe", "eval(")
        if word in path.read_text().replace(".eval(", ".")
    }
    assert found == {"deployment/metadata.py: weights_only=False"}
