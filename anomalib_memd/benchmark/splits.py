"""The images that methods are tested on: those to choose by, and those that are opened once, with a log of it."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from filelock import FileLock

from anomalib_memd.files import written_whole
from anomalib_memd.version import __version__

VAL, DEV, TEST = "val", "dev", "test"

CHOOSING = (VAL, DEV)
"""Images to choose by. ``dev`` is the ``test`` of the data set that a data set names as its ``development``."""

TITLES = {VAL: "val, to choose by", DEV: "dev, looked at before", TEST: "test"}

HEADING = "## Openings of the test images"

_COLUMNS = ("date", "data sets", "commit", "why")


def reported(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores that a figure shows: those of ``test`` where it was opened, else those of ``val``.

    Args:
        scores: Rows with the columns ``tested_on`` and ``split``.
    """
    opened = scores.groupby("tested_on").split.transform(lambda split: (split == TEST).any())
    return scores[scores.split == opened.map({True: TEST, False: VAL})]


def log_opening(path: Path, datasets: Sequence[str], reason: str) -> None:
    """Add a line to the table of openings in a Markdown file; file, heading and table are made if needed.

    Args:
        path: The file.
        datasets: Names of the data sets whose test images are opened.
        reason: Why they are opened.

    Raises:
        ValueError: If there is no reason.
    """
    reason = " ".join(reason.split()).replace("|", "/")
    if not reason:
        msg = "Test images are opened for a reason: --open_test 'figures of version 1.0'."
        raise ValueError(msg)
    row = _cells(time.strftime("%Y-%m-%d %H:%M"), ", ".join(datasets), _commit(path), reason)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):  # Runs with folders of their own may have one log.
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if HEADING not in lines:
            lines += [*([""] if lines else []), HEADING, "", _cells(*_COLUMNS), _cells(*["---"] * len(_COLUMNS))]
        own = lines.index(HEADING)
        end = next((place for place in range(own + 1, len(lines)) if lines[place].startswith("## ")), len(lines))
        last = max(place for place in range(own, end) if lines[place].startswith("|") or place == own)
        lines.insert(last + 1, row)
        with written_whole(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _commit(log: Path) -> str:
    """Commit of the working folder, marked where files but for the log differ; the version outside a repository."""
    try:
        commit = git("rev-parse", "--short", "HEAD")
        root = Path(git("rev-parse", "--show-toplevel"))
        changed = {root / name for name in git("diff", "--name-only", "-z", "HEAD").split("\0") if name}
        return f"{commit}, with changes" if changed - {log.resolve()} else commit
    except (OSError, subprocess.CalledProcessError):
        return f"anomalib-memd {__version__}"


def git(*arguments: str) -> str:
    """What a command of git prints.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)  # noqa: S603, S607
    return done.stdout.strip()
