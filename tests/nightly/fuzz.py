"""Feed one parser whatever atheris comes up with: python -m tests.nightly.fuzz PARSER -runs=N."""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["anomalib_memd.data.split", "anomalib_memd.benchmark.config", "yaml", "json"]):
    from anomalib_memd.benchmark.config import load_config
    from anomalib_memd.data.split import read_split
    from anomalib_memd.deployment.metadata import Metadata
    from anomalib_memd.inference.score_table import ScoreTable

FOLDER = Path(tempfile.mkdtemp())


def _split(data: bytes) -> None:
    path = FOLDER / "split.csv"
    path.write_bytes(data)
    _read_or_refused(read_split, path)


def _configuration(data: bytes) -> None:
    path = FOLDER / "benchmark.yaml"
    path.write_bytes(data)
    _read_or_refused(load_config, path)


def _metadata(data: bytes) -> None:
    try:
        Metadata.from_json(data.decode("utf-8", "replace"))
    except (ValueError, TypeError, KeyError):
        return  # Those that read_metadata names the file in.


def _manifest(data: bytes) -> None:
    (FOLDER / "scores.csv").unlink(missing_ok=True)
    (FOLDER / "run.json").write_bytes(data)
    _read_or_refused(lambda path: ScoreTable(path, {"model": "this"}).close(), FOLDER)


def _read_or_refused(use, path):
    try:
        use(path)
    except ValueError as error:
        if str(path) not in str(error):
            raise AssertionError(str(error)) from error


PARSERS = {"split": _split, "configuration": _configuration, "metadata": _metadata, "manifest": _manifest}

if __name__ == "__main__":
    parser = PARSERS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, parser)
    atheris.Fuzz()
