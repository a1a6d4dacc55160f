"""Parsers take whatever a fuzzer comes up with, or refuse it by an error that names the file."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(find_spec("atheris") is None, reason="needs atheris, which there is for Linux"),
]

SEEDS = {
    "split": b"image,class,label,split\na.png,colon,normal,train\n",
    "configuration": b"datasets: {a: {class_path: A}}\nmethods: {b: {class_path: B, seeds: [1]}}\nmax_time: 3\n",
    "metadata": b'{"branch": "wli", "classes": [], "threshold": 0.5, "raw_threshold": 0, "image_size": [8, 8], '
    b'"version": "1", "checkpoint": ""}',
    "manifest": b'{"model": "this", "modality": null}',
}
RUNS = 50_000


@pytest.mark.parametrize("parser", SEEDS)
def test_a_parser_takes_or_refuses_anything(parser, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(SEEDS[parser])
    command = [sys.executable, "-m", "tests.nightly.fuzz", parser, f"-runs={RUNS}", "-seed=1", "-max_len=400"]
    # On Linux a process starts with the peak memory of the one that has started it, so a limit would be that of pytest.
    command.append("-rss_limit_mb=0")
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/", corpus],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr
