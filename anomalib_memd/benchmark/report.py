"""All tables and figures of a benchmark in one HTML page that needs nothing else."""

import base64
import html
import io
import json
from pathlib import Path
from string import Template
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from PIL import Image

from anomalib_memd.modality import Modality

from . import tables
from .figures import write_figures
from .markup import write_tables
from .splits import reported

_PAGE = Path(__file__).with_name("report.html")


def write_report(output: Path, ablation: bool = False) -> Path:
    """Write ``output/report.html``, and all tables below ``output/tables``.

    Args:
        output: Folder of a benchmark.
        ablation: Whether the methods are variants of one, listed by group.

    Returns:
        The page.

    Raises:
        FileNotFoundError: If no job has finished there.
    """
    facts = tables.load_facts(output)
    figures = "".join(
        f'<figure><img alt="{html.escape(path.stem)}" src="{_data_url(path.read_bytes())}">'
        f"<figcaption>{html.escape(path.stem)}</figcaption></figure>"
        for path in write_figures(output)
    )
    sections = "".join(
        f"<h2>{html.escape(title)}</h2><div class=table>{_table(table)}</div>"
        for title, table in write_tables(output, ablation).items()
    )
    last = max(f["finished"] for f in facts)
    versions = ", ".join(f"{name} {number}" for name, number in facts[0]["versions"].items())
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title="Ablation of MEMD" if ablation else "MEMD beside other models",
        about=html.escape(f"{len(facts)} jobs, the last finished {last}; {versions}."),
        tables=sections,
        figures=figures,
        # A tag or a comment inside the data would end the script.
        cases=json.dumps(_cases(facts)).replace("<", "\\u003c"),
    )
    path = output / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _table(table: pd.DataFrame) -> str:
    return table.fillna("").to_html(index=False, border=0, escape=True)


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _cases(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page steps through: each kept image, and the heat maps of every method's first seed over it."""
    cases: dict[tuple[str, str], dict[str, Any]] = {}
    seen: set[tuple[str, str, str]] = set()
    for run in facts:
        rows = pd.read_csv(run["folder"] / "scores.csv")
        scores = reported(rows[rows.tested_on == run["dataset"]]).set_index(["detector", "image"]).score
        with np.load(run["folder"] / "pictures.npz") as pictures:
            stored = {key: pictures[key] for key in pictures.files}
        for detector in (modality.value for modality in Modality):
            maps = [v for key, v in stored.items() if key.startswith(f"map/{detector}/")]
            if (run["dataset"], run["method"], detector) in seen:
                continue
            for key, image in stored.items():
                if not key.startswith(f"image/{detector}/"):
                    continue
                seen.add((run["dataset"], run["method"], detector))
                name = key.removeprefix(f"image/{detector}/")
                case = cases.setdefault(
                    (run["dataset"], name), {"dataset": run["dataset"], "image": name, "views": {}, "maps": []}
                )
                case["views"].setdefault(detector, _picture(image.transpose(1, 2, 0)))
                if f"mask/{name}" in stored:
                    case["views"].setdefault("mask", _picture(255 * stored[f"mask/{name}"].astype(np.uint8)))
                entry = {"method": run["method"], "detector": detector, "score": f"{scores[detector, name]:.2f}"}
                if maps:
                    values = np.stack(maps).astype(np.float32)
                    low, high = np.median(values), values.max()
                    scaled = (stored[f"map/{detector}/{name}"].astype(np.float32) - low) / max(high - low, 1e-9)
                    entry["picture"] = _picture((255 * mpl.colormaps["inferno"](scaled)[..., :3]).astype(np.uint8))
                case["maps"].append(entry)
    return list(cases.values())


def _picture(array: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", optimize=True)
    return _data_url(file.getvalue())
