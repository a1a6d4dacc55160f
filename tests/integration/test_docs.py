"""What the documentation shows: the site, the notebook, and the commands of its pages."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from anomalib_memd.cli.main import COMMANDS
from tests.conftest import command_environment

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])


def commands_of(page):
    """The lines of the blocks of commands of a page."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line.strip()]


def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = command_environment() | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "site" / "method" / "index.html").is_file()
    assert "Number of images a step" not in done.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert "Judge frames one after the other" in api


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_are_commands(page):
    """Names of commands and of their options, and files of configurations, are real."""
    for line in commands_of(page):
        words = shlex.split(line, comments=True)
        for name in [word for word in words if re.fullmatch(r"configs/\w+\.yaml", word)]:
            assert (ROOT / name).is_file(), line
        if words[:1] != ["anomalib-memd"] or words[1] in {"train", "test", "predict", "wtngan"}:
            continue
        assert words[1] in COMMANDS, line
        known = COMMANDS[words[1]].__annotations__
        for option in [word[2:].split("=")[0].split(".")[0].rstrip("+") for word in words if word.startswith("--")]:
            assert option in known, line


def test_each_page_is_in_the_site():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["nav"]
    for page in (ROOT / "docs").glob("*.md"):
        assert f" {page.name}\n" in text


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
