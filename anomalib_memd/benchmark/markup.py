"""Tables as Markdown, LaTeX and CSV."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_memd.evaluation import overlap_metrics
from anomalib_memd.modality import Branch, Modality

from . import significance, splits, tables

MARKS = ("¹", "²", "³")
TITLES = {"wli": "WLI", "nbi": "NBI", "teacher": "teacher (pairs)"}


def write_tables(output: Path, ablation: bool = False) -> dict[str, pd.DataFrame]:
    """Write all tables of a benchmark below ``output/tables``, as CSV with all figures, Markdown and LaTeX.

    Args:
        output: Folder of the benchmark.
        ablation: Whether the methods are variants of one, listed by group.

    Returns:
        All of them as people read them, by title.

    Raises:
        FileNotFoundError: If no job has finished there.
    """
    folder = output / "tables"
    raw = _raw_tables(output)
    shown = _shown_tables(output, raw, ablation)
    folder.mkdir(exist_ok=True)
    for name, table in raw.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "tables.md").write_text(titled_markdown(shown), encoding="utf-8")
    latex = [table.to_latex(index=False, escape=True, caption=title, na_rep="") for title, table in shown.items()]
    (folder / "tables.tex").write_text("\n".join(latex), encoding="utf-8")
    return shown


def _raw_tables(output: Path) -> dict[str, pd.DataFrame]:
    """Every table with plain figures, by name, see :mod:`~anomalib_memd.benchmark.tables`."""
    scores = tables.load_scores(output)
    comparison = tables.comparison(scores)
    return {
        "comparison": comparison,
        "drops": tables.drops(comparison),
        "seeds": tables.image_metrics(scores),
        "classes": tables.class_metrics(scores),
        "pixels": tables.pixel_metrics(output),
        "lead": significance.leads(scores),
        "ranks": _ranks(scores),
        "families": significance.families(splits.reported(comparison), tables.groups(output)),
        "trainings": tables.trainings(output),
        "contribution": tables.contribution(output),
        "costs": tables.costs(output),
    }


def to_markdown(table: pd.DataFrame) -> str:
    """A table of strings as Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.fillna("").astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def titled_markdown(shown: dict[str, pd.DataFrame]) -> str:
    """Tables as Markdown, each below its title."""
    return "\n\n".join(f"### {title}\n\n{to_markdown(table)}" for title, table in shown.items()) + "\n"


def _shown_tables(output: Path, raw: dict[str, pd.DataFrame], ablation: bool = False) -> dict[str, pd.DataFrame]:
    """Every table as people read it, by title.

    Args:
        output: Folder of the benchmark.
        raw: Its tables with plain figures, see :func:`_raw_tables`.
        ablation: Whether the methods are variants of one, listed by group.
    """
    shown = {}
    comparison, pixels = raw["comparison"], raw["pixels"]
    for (dataset, tested_on, split), part in comparison.groupby(["dataset", "tested_on", "split"], sort=False):
        name = dataset if dataset == tested_on else f"{dataset}, tested on {tested_on}"
        name = f"{name} ({splits.TITLES[str(split)]})"
        table = _methods(part, paper=dataset == tested_on and not ablation)
        if ablation:
            table = _variants(table, part, "auroc", output)
        elif dataset == tested_on:
            table = _with_cost(table, raw["costs"], str(dataset))
        shown[f"{name}: image AUROC / average precision in %"] = table
        own = pixels[(pixels.dataset == dataset) & (pixels.tested_on == tested_on) & (pixels.split == split)]
        if len(own):
            table = _variants(_pixels(own), own, "pixel_AUROC", output) if ablation else _pixels(own)
            shown[f"{name}: pixel AUROC / AUPRO in %"] = table
            if "pixel_Dice" in own and own["pixel_Dice"].notna().any():
                shown[f"{name}: overlap of masks in %"] = _overlap(own[own["pixel_Dice"].notna()])
    if comparison.split.nunique() > 1:
        shown["Image AUROC in % on images to choose by and on test, and the drop (points)"] = _drops(raw["drops"])
    classes = splits.reported(raw["classes"])
    classes = classes[classes.dataset == classes.tested_on]
    if classes["class"].nunique() > 1:
        shown["Image AUROC in % of each abnormal class"] = _wide(classes)
    if len(raw["lead"]) and not ablation:
        shown["Lead of MEMD over the best other method, and the best of its variants (points)"] = _lead(raw["lead"])
    if len(raw["ranks"]) and not ablation:
        shown["Mean rank over data sets and modalities, by image AUROC"] = raw["ranks"].round(3)
    if len(raw["families"]) and raw["families"].family.nunique() > 1 and not ablation:
        shown["Image AUROC in % by family"] = _families(raw["families"])
    if len(raw["trainings"]):
        shown["How trainings ended"] = raw["trainings"].round(3)
    if len(raw["contribution"]) and not ablation:
        shown["Modality contribution (images judged right)"] = raw["contribution"].round(3)
    shown["Cost"] = raw["costs"].round(1)
    return shown


def _methods(part: pd.DataFrame, paper: bool) -> pd.DataFrame:
    rows: dict[str, dict[str, str]] = {}
    for detector in Branch:
        own = part[part.detector == detector.value]
        compared, title = detector is not Branch.TEACHER, TITLES[detector.value]
        ranks = own.auroc.rank(ascending=False, method="min")
        for row, rank in zip(own.to_dict("records"), ranks, strict=True):
            cells = rows.setdefault(row["method"], {"method": row["method"], "seeds": str(row["seeds"])})
            cells[title] = _pair(row, "auroc", "ap") + (MARKS[int(rank) - 1] if compared and rank <= len(MARKS) else "")
            if compared:
                cells[f"{title} 95 %"] = f"{100 * row['auroc_low']:.1f} to {100 * row['auroc_high']:.1f}"
    if paper:
        for name, results in tables.PAPER_RESULTS.items():
            cells = rows.setdefault(f"{name} (paper)", {"method": f"{name} (paper)"})
            for modality, (auroc, precision) in results.items():
                cells[f"{TITLES[modality]}, paper, Kvasir V2"] = f"{auroc:.1f} / {precision:.1f}"
    return pd.DataFrame(list(rows.values()))


def _with_cost(table: pd.DataFrame, costs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """What each method costs beside what it reaches: seconds of a training, milliseconds an image, memory."""
    names = {f"train_s {dataset}": "training, s", "torch_ms": "an image, ms", "memory_gb": "memory, GB"}
    found = costs.set_index("method")
    digits = {"training, s": 0, "an image, ms": 1, "memory, GB": 1}
    for name, title in names.items():
        if name in found:
            values = table.method.map(found[name])
            table[title] = ["" if pd.isna(value) else f"{value:.{digits[title]}f}" for value in values]
    return table


def _variants(table: pd.DataFrame, part: pd.DataFrame, metric: str, output: Path) -> pd.DataFrame:
    """The table of an ablation: groups first, and what each variant loses to the unchanged model, in points."""
    groups = tables.groups(output)
    table = table[["method", *[title for title in TITLES.values() if title in table]]].rename(
        columns={"method": "variant"}
    )
    table.insert(0, "group", table.variant.map(groups))
    for modality in Modality:
        values = part[part.detector == modality.value].set_index("method")[metric]
        loss = 100 * (values.get(table.variant[0]) - table.variant.map(values))
        table[f"loss of {modality.name}"] = ["" if pd.isna(x) else f"{x:.1f}" for x in loss]
    return table


def _pixels(own: pd.DataFrame) -> pd.DataFrame:
    rows: dict[str, dict[str, str]] = {}
    for row in own.to_dict("records"):
        cells = rows.setdefault(row["method"], {"method": row["method"]})
        cells[TITLES[row["detector"]]] = _pair(row, "pixel_AUROC", "pixel_AUPRO")
    return pd.DataFrame(list(rows.values()))


def _overlap(own: pd.DataFrame) -> pd.DataFrame:
    """What networks that segment decided, in percent, and the spread where there are several seeds."""
    shown = own[["method", "detector"]].copy()
    for name in (metric.name for metric in overlap_metrics()):
        spread = ["" if pd.isna(std) else f" ± {100 * std:.1f}" for std in own[f"{name}_std"]]
        shown[name.removeprefix("pixel_")] = [f"{100 * x:.1f}{s}" for x, s in zip(own[name], spread, strict=True)]
    return shown


def _pair(row: dict[Hashable, Any], first: str, second: str) -> str:
    """Two metrics in percent, and their spread where there are several seeds."""
    spread = ""
    if not pd.isna(row[f"{first}_std"]):
        spread = f" ± {100 * row[f'{first}_std']:.1f} / {100 * row[f'{second}_std']:.1f}"
    return f"{100 * row[first]:.1f} / {100 * row[second]:.1f}{spread}"


def _wide(classes: pd.DataFrame) -> pd.DataFrame:
    means = classes.groupby(["dataset", "method", "detector", "class"], sort=False).auroc.mean().mul(100).round(1)
    return means.unstack("class").reset_index()


def _drops(drops: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame(
        {"trained on": drops.dataset, "tested on": drops.tested_on, "method": drops.method, "detector": drops.detector}
    )
    for name in drops.columns[shown.shape[1] :]:
        title = name.replace("_drop", " - test")
        shown[title] = ["" if pd.isna(x) else f"{100 * x:{'+' if '-' in title else ''}.1f}" for x in drops[name]]
    return shown


def _ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean ranks, best first, with how far they have to lie apart, and whether they differ at all."""
    table = significance.ranks(splits.reported(scores))
    if len(table) < 2 or table.shape[1] < 2:
        return pd.DataFrame()
    means = table.mean(axis=1).sort_values()
    shown = pd.DataFrame({"method": means.index, "mean rank": means.to_numpy()})
    return shown.assign(
        **{
            "critical difference": significance.critical_difference(*table.shape),
            "p (Friedman)": significance.friedman(table),
        }
    )


def _families(families: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "family": families.family,
            "tested on": families.tested_on,
            "modality": families.detector.map(TITLES),
            "methods": families.methods,
            "mean": [f"{100 * x:.1f}" for x in families["mean"]],
            "best": [f"{100 * x:.1f}, {name}" for x, name in zip(families.best, families.best_method, strict=True)],
        }
    )


def _lead(lead: pd.DataFrame) -> pd.DataFrame:
    lead = lead[lead.best]
    return pd.DataFrame(
        {
            "trained on": lead.dataset,
            "tested on": lead.tested_on,
            "split": lead.split,
            "metric": lead.metric.map({"auroc": "image AUROC", "ap": "average precision"}),
            "modality": lead.detector.map(TITLES),
            "best other": lead.rival,
            "lead": [f"{100 * x:+.1f}" for x in lead.lead],
            "95 %": [f"{100 * a:+.1f} to {100 * b:+.1f}" for a, b in zip(lead.low, lead.high, strict=True)],
            "p": [f"{p:.3f}" for p in lead.p],
            "p (Holm)": [f"{p:.3f}" for p in lead.p_holm],
        }
    )
