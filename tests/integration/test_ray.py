"""The benchmark and the scoring of archives on a Ray cluster of two nodes on this machine."""

import pickle
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from anomalib_memd import Modality
from anomalib_memd.benchmark.config import Method
from anomalib_memd.benchmark.job import BenchmarkJob
from anomalib_memd.benchmark.ray_runner import RayRunner
from anomalib_memd.benchmark.task import Task
from anomalib_memd.cli.main import main
from anomalib_memd.cluster import connect
from tests.conftest import deployable_memd
from tests.integration.test_benchmark import CONFIG, run

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
from ray.cluster_utils import Cluster  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
METHODS = ["Pooled Mahalanobis", "Broken", "MEMD"]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core, to which the driver is connected."""
    monkeypatch = pytest.MonkeyPatch()
    for name, value in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    nodes = Cluster(initialize_head=True, head_node_args=NODE)
    nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    connect()
    yield nodes
    ray.shutdown()
    nodes.shutdown()
    monkeypatch.undo()


def scores(folder):
    """Scores of all jobs, by the folder of the job."""
    return {path.parent.relative_to(folder): pd.read_csv(path) for path in folder.rglob("scores.csv")}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A student, and a folder of 60 frames, one of them broken."""
    folder = tmp_path_factory.mktemp("archive")
    model = deployable_memd().deployed(Modality.WLI).to_openvino(folder, input_size=None)
    frames = np.random.default_rng(0).integers(0, 255, (60, 40, 48, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        path = folder / "frames" / f"{number % 3}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(path)
    path.write_bytes(pickle.dumps(Marker(str(folder / "was here"))))
    return folder, model


class Marker:
    """Something that runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.nightly
@pytest.mark.parametrize("source", ["frames/**/*.png", "file://{}/frames"])
def test_an_archive_is_scored_the_same_on_a_cluster(cluster, archive, tmp_path, source, monkeypatch):
    folder, model = archive
    monkeypatch.chdir(folder)
    source = source.format(folder)
    run(folder, "score", "--model", model, "--input", source, "--output", tmp_path / "alone")
    arguments = ["score", "--model", str(model), "--input", source, "--output", str(tmp_path / "many")]
    main([*arguments, "--runner", "ray", "--job_cores", "1"])
    alone, many = ((tmp_path / name / "scores.csv").read_text() for name in ("alone", "many"))
    assert many == alone
    assert many.count("\n") == 61
    assert "not an image" in many
    # The same command again goes on where it was cut off.
    (tmp_path / "many/scores.csv").write_text("".join(many.splitlines(keepends=True)[:20]))
    main([*arguments, "--runner", "ray", "--job_cores", "1"])
    assert (tmp_path / "many/scores.csv").read_text() == alone
    assert not (folder / "was here").exists()


def test_what_workers_return_is_not_unpickled(cluster, tmp_path, monkeypatch):
    class Malicious(BenchmarkJob):
        def run(self, task_id=None):
            return None

    job = Malicious(Task(Method("Rival", "Padim"), "set", {}, "wli", 0, tmp_path))
    monkeypatch.setattr("anomalib_memd.benchmark.ray_runner._run", lambda _: Marker(str(tmp_path / "was here")))
    table = RayRunner(lambda *_: [job], cores=1).run({})
    assert table.status.tolist() == ["failed"]
    assert not (tmp_path / "was here").exists()


def test_a_job_larger_than_every_machine_is_refused(cluster, tmp_path):
    job = BenchmarkJob(Task(Method("Rival", "Padim"), "set", {}, "wli", 0, tmp_path))
    with pytest.raises(RuntimeError, match="takes 64 cores, the largest machine has 1"):
        RayRunner(lambda *_: [job], cores=64).run({})
    with pytest.raises(RuntimeError, match="the cluster has no GPU"):
        RayRunner(lambda *_: [job], cores=1, gpus=1).run({})


@pytest.mark.nightly
def test_a_benchmark_gives_the_same_on_a_cluster_that_loses_a_node(cluster, tmp_path, capsys):
    chosen = CONFIG | {"methods": {name: CONFIG["methods"][name] for name in METHODS}, "latency": False}
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(chosen, sort_keys=False))
    arguments = ["benchmark", "--config", str(tmp_path / "benchmark.yaml"), "--root", str(tmp_path)]
    alone = run(tmp_path, *arguments, "--output", "alone")
    assert "1 of 4 jobs failed" in alone.stderr or "2 of 5 jobs failed" in alone.stderr

    begun = set()

    def lose_a_node():
        (lost,) = cluster.worker_nodes
        while len(begun) < 2:
            begun.update(path.name for path in (tmp_path / "many").glob(".job-*"))
            time.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)

    thread = Thread(target=lose_a_node)
    thread.start()
    with pytest.raises(SystemExit, match="jobs failed"):
        main([*arguments, "--output", str(tmp_path / "many"), "--runner", "ray", "--job_cores", "1"])
    thread.join()
    assert sum(node["Alive"] for node in ray.nodes()) == 1
    expected, found = scores(tmp_path / "alone"), scores(tmp_path / "many")
    assert set(found) == set(expected)
    for name, table in expected.items():
        pd.testing.assert_frame_equal(found[name], table)
    note = (tmp_path / "many/runs/phantom/Broken/wli-seed0.error.txt").read_text()
    assert "timm cannot build the backbone 'no_such_network'" in note
    printed = capsys.readouterr().out
    figures = [line for line in alone.stdout.splitlines() if line.startswith("| MEMD |") and "/" in line]
    assert figures
    assert set(figures) <= set(printed.splitlines())
    assert not list((tmp_path / "many").glob(".job-*"))
