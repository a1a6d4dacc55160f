"""The benchmark from the command line: finished, failed and killed jobs, tables, and the report in a browser."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from anomalib_memd import MEMD
from anomalib_memd.benchmark import pipeline
from anomalib_memd.benchmark.config import load_config
from anomalib_memd.version import __version__
from tests.conftest import command_environment, start

COMMAND = Path(sys.executable).with_name("anomalib-memd")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
BACKBONE = {"backbone": "tf_efficientnet_lite0", "backbone_weights": "package", "layers": ["blocks.2", "blocks.4"]}
CONFIG = {
    "datasets": {
        "phantom": {
            "class_path": "anomalib_memd.Phantom",
            "init_args": {"image_size": 96, "train": 48, "val": 12, "test": 20, "num_workers": 0, "root": "phantom"},
        }
    },
    "methods": {
        "Pooled Mahalanobis": {"class_path": "PooledFeatures", "init_args": {**BACKBONE, "distance": "mahalanobis"}},
        "Broken": {"class_path": "PooledFeatures", "init_args": {"backbone": "no_such_network"}},
        "Reverse Distillation": {
            "class_path": "ReverseDistillation",
            "init_args": {"backbone": "resnet18", "pre_trained": False},
            "learns": True,
            "max_epochs": 1,
            "modality": "wli",
        },
        "MEMD": {
            "class_path": "MEMD",
            "paired": True,
            "init_args": {
                **BACKBONE,
                "image_size": [96, 96],
                "negatives": {"per_image": 2},
            },
        },
        "no distillation": {
            "class_path": "MEMD",
            "paired": True,
            "teacher_of": "MEMD",
            "init_args": {
                **BACKBONE,
                "image_size": [96, 96],
                "negatives": {"per_image": 2},
                "distillation": {"weight": 0},
            },
        },
        "MEMD as published": {
            "class_path": "MEMD",
            "paired": True,
            "init_args": {
                **BACKBONE,
                "image_size": [96, 96],
                "negatives": {"kind": "lesion", "per_image": 2},
                "head": {"evidence": "encoding"},
                "encoder": {"width": 64},
                "training": {"teacher_epochs": 40, "student_epochs": 40, "learning_rate": 5e-3, "noise": 1.0},
            },
        },
    },
}


def run(folder, *arguments):
    return start("anomalib-memd", folder, *arguments)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """A benchmark that was killed after its first job and then run to the end."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    arguments = ["benchmark", "--config", "benchmark.yaml", "--output", "out", "--root", str(folder)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen([COMMAND, *arguments], cwd=folder, env=command_environment(), **silent)
    done = folder / "out/runs/phantom/Pooled_Mahalanobis/wli-seed0/result.json"
    while not done.exists() and first.poll() is None:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert done.exists()
    stamp = done.stat().st_mtime_ns
    finished = run(folder, *arguments)
    assert done.stat().st_mtime_ns == stamp, "a finished job was run again"
    return folder, finished


@pytest.mark.slow
def test_it_goes_on_after_it_was_killed_and_finishes_all_but_the_broken_job(benchmark):
    folder, finished = benchmark
    assert finished.returncode != 0
    results = {p.parent.parent.name for p in (folder / "out/runs/phantom").glob("*/*/result.json")}
    expected = {"Pooled_Mahalanobis", "Reverse_Distillation", "MEMD", "no_distillation", "MEMD_as_published"}
    assert results == expected, finished.stdout[-2000:] + finished.stderr[-3000:]
    assert "timm cannot build the backbone 'no_such_network'" in finished.stdout
    assert "run again to repeat them" in finished.stderr
    errors = (folder / "out/runs/phantom/Broken/wli-seed0.error.txt").read_text()
    assert "BackboneError" in errors


@pytest.mark.slow
def test_the_printed_figures_are_those_of_the_stored_scores(benchmark):
    folder, finished = benchmark
    scores = pd.read_csv(folder / "out/runs/phantom/MEMD/paired-seed0/scores.csv")
    row = next(line for line in finished.stdout.splitlines() if line.startswith("| MEMD |"))
    for detector in ("wli", "nbi"):
        own = scores[scores.detector == detector]
        assert f"{100 * roc_auc_score(own.label, own.score):.1f} /" in row
    assert set(scores.split) == {"val"}
    assert len(scores) == 3 * 24


@pytest.mark.slow
def test_memd_separates_normal_from_abnormal(benchmark):
    folder, _ = benchmark
    scores = pd.read_csv(folder / "out/runs/phantom/MEMD/paired-seed0/scores.csv")
    for detector in ("wli", "nbi"):
        own = scores[scores.detector == detector]
        assert roc_auc_score(own.label, own.score) > 0.75


@pytest.mark.slow
def test_networks_separate_normal_from_abnormal(benchmark):
    folder, _ = benchmark
    job = folder / "out/runs/phantom/MEMD_as_published/paired-seed0"
    scores = pd.read_csv(job / "scores.csv")
    for detector in ("wli", "nbi", "teacher"):
        own = scores[scores.detector == detector]
        assert roc_auc_score(own.label, own.score) > 0.7, detector
    losses = pd.read_csv(job / "log.csv")
    for name in ("teacher_loss", "students_loss"):
        course = losses[name].dropna()
        assert course.iloc[-1] < course.iloc[0]
    assert json.loads((job / "result.json").read_text())["epochs"] == 80


@pytest.mark.slow
def test_a_job_leaves_what_it_cost_and_where_it_judged(benchmark):
    folder, _ = benchmark
    facts = json.loads((folder / "out/runs/phantom/MEMD/paired-seed0/result.json").read_text())
    assert facts["epochs"] == 2
    assert set(facts["thresholds"]) == {"wli", "nbi", "teacher"}
    assert 0 < facts["pixel_metrics"]["phantom"]["val"]["wli"]["pixel_AUPRO"] <= 1
    assert facts["peak_memory_bytes"] > 1e8
    assert facts["versions"]["anomalib-memd"] == __version__
    MEMD.load_from_checkpoint(folder / "out/runs/phantom/MEMD/paired-seed0/model.ckpt", visualizer=False)
    taker = json.loads((folder / "out/runs/phantom/no_distillation/paired-seed0/result.json").read_text())
    assert taker["epochs"] == 1


@pytest.mark.slow
@pytest.mark.nightly
def test_exported_students_are_measured(benchmark):
    folder, _ = benchmark
    done = run(
        folder, "benchmark", "--config", "benchmark.yaml", "--root", folder, "--output", "out", "--deployment"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    agreement = pd.read_csv(folder / "out/deployment/agreement.csv").set_index(["modality", "format"])
    for modality in ("WLI", "NBI"):
        own = agreement.loc[modality]
        assert (own.loc[["OpenVINO FP32", "ONNX Runtime", "TorchScript"], "score difference"] <= 1e-3).all()
        assert own.loc["OpenVINO FP16", "score difference"] <= 5e-3
        assert own["image AUROC"].dropna().min() > 70
    speed = pd.read_csv(folder / "out/deployment/speed.csv").set_index("model")
    assert speed.loc["bare backbone, FP32", "x backbone, batch 1"] == 1
    assert {"MEMD student, FP32", "MEMD student, FP16", "MEMD student, INT8", "PatchCore, FP32"} <= set(speed.index)
    assert speed.loc["MEMD student, FP16", "MB of files"] < 0.7 * speed.loc["MEMD student, FP32", "MB of files"]
    assert "| MEMD student, INT8 |" in done.stdout


@pytest.mark.slow
@pytest.mark.nightly
def test_jobs_run_side_by_side_and_a_repeated_run_gives_the_same_figures(benchmark, monkeypatch):
    folder, _ = benchmark
    methods = {name: CONFIG["methods"][name] for name in ("MEMD", "Reverse Distillation")}
    methods["MEMD"] = methods["MEMD"] | {"seeds": [0, 1]}
    methods["Reverse Distillation"] = methods["Reverse Distillation"] | {"max_epochs": 10_000}
    config = CONFIG | {"methods": methods, "max_time": "MEMD", "latency": False}
    (folder / "parallel.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.setattr(pipeline, "_jobs_at_a_time", lambda _: 2)
    results = pipeline.Benchmark(load_config(folder / "parallel.yaml", folder), folder / "parallel").run()
    assert list(results.method) == ["MEMD", "MEMD", "Reverse Distillation"]
    assert set(results.status) == {"finished"}, list(results.error)

    def scores(output, job):
        return pd.read_csv(folder / output / "runs/phantom" / job / "scores.csv")

    # Features of images that a job before has kept are rounded, and threads add up in another order.
    aside = scores("parallel", "MEMD/paired-seed0")
    pd.testing.assert_frame_equal(scores("out", "MEMD/paired-seed0"), aside, rtol=0, atol=0.05)

    done = run(
        folder, "benchmark", "--config", "parallel.yaml", "--root", folder, "--output", "again",
        "--repeat", "parallel", "--methods", '["Reverse Distillation"]',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    job = "Reverse_Distillation/wli-seed0"
    limited, repeated = (
        json.loads((folder / output / "runs/phantom" / job / "result.json").read_text())
        for output in ("parallel", "again")
    )
    assert limited["max_time"] > 0
    assert repeated["max_time"] is None
    assert limited["batches"] == repeated["batches"]
    assert limited["ended_by"][0] in {"time", "loss"}
    assert repeated["ended_by"] == ["repeated"]
    # Both trainings are the same but for the order in which threads add numbers up, which training lets grow.
    pd.testing.assert_frame_equal(scores("parallel", job), scores("again", job), rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_the_report_needs_nothing_else(benchmark):
    folder, _ = benchmark
    done = run(folder, "report", "--output", "out")
    assert done.returncode == 0, done.stderr[-2000:]
    page = (folder / "out/report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "MEMD" in page
    drawn = {path.stem for path in (folder / "out/figures").glob("*.png")}
    expected = {f"phantom-{name}" for name in ("distributions", "curves", "heatmaps", "encodings", "training")}
    assert expected | {"latency"} <= drawn


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.slow
def test_the_report_works_in_a_browser(benchmark, tmp_path):
    folder, _ = benchmark
    run(folder, "report", "--output", "out")
    # Step to the next image once the page is there, as a reader would, on a phone.
    page = (folder / "out/report.html").read_text()
    stepping = tmp_path / "page.html"
    width = "document.title = document.documentElement.scrollWidth <= innerWidth ? 'it fits' : 'too wide';"
    stepping.write_text(page.replace("</html>", f'<script>at("forth").click(); {width}</script></html>'))
    names = []
    for file in (folder / "out/report.html", stepping):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        flags += ["--window-size=420,900"]
        dom = subprocess.run(
            [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()],
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout  # fmt: skip
        views = dom.split('id="views"')[1].split('id="maps"')[0]
        assert views.count("<img") == 3
        assert re.search(r'id="maps">.*?<img[^>]*alt="MEMD: -?[\d.]+"', dom, re.DOTALL)
        names.append(views)
    assert names[0] != names[1]
    assert "<title>it fits</title>" in dom


@pytest.mark.slow
def test_test_images_are_opened_once_and_logged(benchmark):
    folder, _ = benchmark
    methods = {"Pooled Mahalanobis": CONFIG["methods"]["Pooled Mahalanobis"]}
    data = {"phantom": CONFIG["datasets"]["phantom"] | {"development": {"phantom_seed": 7}}}
    config = {"datasets": data, "methods": methods, "latency": False, "test_log": "log.md"}
    (folder / "opened.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    arguments = ["benchmark", "--config", "opened.yaml", "--root", folder, "--output", "opened"]
    job = folder / "opened/runs/phantom/Pooled_Mahalanobis/wli-seed0"
    trained = []
    for opening in ([], ["--open_test", "figures of the test"], ["--open_test", "figures of the test"]):
        done = run(folder, *arguments, *opening)
        assert done.returncode == 0, done.stderr[-2000:]
        trained.append(json.loads((job / "result.json").read_text())["training_seconds"])
    assert len(set(trained)) == 1, "it was trained again"
    scores = pd.read_csv(job / "scores.csv")
    assert scores.split.value_counts().to_dict() == {"val": 24, "dev": 40, "test": 40}
    assert scores.groupby("split").score.mean().nunique() == 3, "a split was tested on the images of another"
    logged = [line for line in (folder / "log.md").read_text().splitlines() if "figures of the test" in line]
    assert len(logged) == 1
    assert "| phantom |" in logged[0]
    assert "| trained on | tested on | method | detector | val | dev | test | val - test | dev - test |" in done.stdout


@pytest.mark.slow
def test_a_data_set_is_checked_from_the_command_line(benchmark):
    folder, _ = benchmark
    data = next((folder / "phantom").glob("*/wli"), None) or next(folder.glob("**/wli"))
    done = run(folder, "check", "--folder", data)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\| all together \| [\d.]+ \|", done.stdout)


def test_a_user_error_is_one_line(tmp_path):
    done = run(tmp_path, "report", "--output", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"anomalib-memd: {tmp_path} holds no finished job")
