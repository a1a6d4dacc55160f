"""Figures of a benchmark, drawn from what its jobs have left."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from sklearn.manifold import TSNE
from sklearn.metrics import precision_recall_curve, roc_curve

from anomalib_memd.modality import Modality

from . import significance, tables
from .bootstrap import times_drawn
from .splits import reported

NORMAL, ABNORMAL = "#3b6fb6", "#c8553d"
TITLE = {modality.value: modality.name for modality in Modality}


def write_figures(output: Path, method: str = "MEMD") -> list[Path]:
    """Draw all figures for which there is something to draw, below ``output/figures``.

    Args:
        output: Folder of a benchmark.
        method: The method whose scores are shown.

    Returns:
        The PNG files.

    Raises:
        FileNotFoundError: If no job has finished there.
    """
    scores, facts = reported(tables.load_scores(output)), tables.load_facts(output)
    folder = output / "figures"
    folder.mkdir(exist_ok=True)
    drawn: list[Path] = []

    def save(name: str, draw: Callable[[], Figure | None]) -> None:
        figure = draw()
        if figure is not None:
            drawn.append(folder / f"{name}.png")
            figure.savefig(drawn[-1], dpi=110, bbox_inches="tight")

    for dataset in scores.dataset.unique():
        own = scores[(scores.dataset == dataset) & (scores.tested_on == dataset)]
        runs = [f for f in facts if f["dataset"] == dataset]
        # What is solved for has neither encodings nor losses: those of the first method that is trained are shown.
        paired = [f for f in runs if f["modality"] == "paired"]
        save(f"{dataset}-distributions", lambda own=own: distributions(own, method))
        save(f"{dataset}-curves", lambda own=own: curves(own))
        save(f"{dataset}-heatmaps", lambda runs=runs: heat_maps(runs))
        for name, draw in (("encodings", encodings), ("training", training)):
            save(f"{dataset}-{name}", lambda draw=draw, paired=paired: next(filter(None, map(draw, paired)), None))
    save("latency", lambda: latency(scores, facts))
    save("ranks", lambda: critical_differences(scores))
    return drawn


def distributions(scores: pd.DataFrame, method: str) -> Figure | None:
    """Distribution of the scores of normal and abnormal images, one panel a modality.

    Args:
        scores: Scores on one data set.
        method: Whose scores.
    """
    scores = scores[scores.method == method]
    if scores.empty:
        return None
    figure, axes = _panels(len(Modality))
    for axis, modality in zip(axes, Modality, strict=True):
        part = scores[scores.detector == modality.value]
        bins = np.histogram_bin_edges(part.score, 40)
        for label, colour, name in ((0, NORMAL, "normal"), (1, ABNORMAL, "abnormal")):
            axis.hist(part.score[part.label == label], bins, density=True, alpha=0.6, color=colour, label=name)
        axis.set(title=f"{method}, {modality.name}", xlabel="score (log odds)", ylabel="density")
        axis.legend()
    return figure


def curves(scores: pd.DataFrame, draws: int = 200) -> Figure:
    """ROC and precision-recall curves of all methods, with 95 % bands over resampled images.

    Args:
        scores: Scores on one data set.
        draws: Number of draws for the bands.
    """
    figure, axes = _panels(2 * len(Modality), columns=2)
    grid = np.linspace(0, 1, 101)
    colours = _colours(scores)
    for row, modality in enumerate(Modality):
        for method, colour in colours.items():
            part = scores[(scores.method == method) & (scores.detector == modality.value)]
            if part.empty:
                continue
            seeds = [(s.label.to_numpy(), s.score.to_numpy()) for _, s in part.groupby("seed")]
            times = times_drawn(seeds[0][0], draws, seed=0)
            for axis, curve in zip(axes[2 * row : 2 * row + 2], (_roc, _precision), strict=True):
                resampled = [curve(*seed, grid, drawn) for seed, drawn in zip(cycle(seeds), times, strict=False)]
                low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
                mean = np.mean([curve(*seed, grid) for seed in seeds], axis=0)
                axis.plot(grid, mean, color=colour, label=method, linewidth=2 if method == "MEMD" else 1)
                axis.fill_between(grid, low, high, color=colour, alpha=0.12, linewidth=0)
        axes[2 * row].set(title=f"{modality.name}: ROC", xlabel="false positive rate", ylabel="true positive rate")
        axes[2 * row + 1].set(title=f"{modality.name}: precision and recall", xlabel="recall", ylabel="precision")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def heat_maps(runs: list[dict[str, Any]], images_per_class: int = 2) -> Figure | None:
    """The same abnormal images with the heat map of every method that draws one, in its first seed.

    Each map has a scale of its own, from the median to the maximum of that method's maps of the kept images.

    Args:
        runs: Jobs of one data set.
        images_per_class: Number of images of each class.
    """
    columns: dict[str, dict[str, np.ndarray]] = {}
    images: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    for run in runs:
        with np.load(run["folder"] / "pictures.npz") as pictures:
            for key in pictures.files:
                kind, _, rest = key.partition("/")
                if kind == "mask":
                    masks[rest] = pictures[key]
                    continue
                detector, _, name = rest.partition("/")
                if detector in TITLE and kind == "map":
                    columns.setdefault(f"{run['method']}\n{TITLE[detector]}", {}).setdefault(name, pictures[key])
                elif detector == Modality.WLI.value:
                    images.setdefault(name, pictures[key])
    labels = pd.concat([pd.read_csv(run["folder"] / "scores.csv") for run in runs[:1]])
    abnormal = set(labels[labels.label == 1].image)
    chosen: list[str] = []
    for name in images:
        if name in abnormal and sum(c.split("/")[0] == name.split("/")[0] for c in chosen) < images_per_class:
            chosen.append(name)
    if not chosen or not columns:
        return None
    figure, axes = _grid(len(chosen), 1 + len(columns) + bool(masks))
    for row, name in zip(axes, chosen, strict=True):
        cells = iter(row)
        next(cells).imshow(images[name].transpose(1, 2, 0))
        if masks:
            next(cells).imshow(masks.get(name, np.zeros((2, 2))), cmap="gray")
        for maps in columns.values():
            values = np.stack(list(maps.values())).astype(np.float32)
            next(cells).imshow(maps[name].astype(np.float32), cmap="inferno", vmin=np.median(values), vmax=values.max())
    for axis, title in zip(axes[0], ["WLI"] + ["mask"] * bool(masks) + list(columns), strict=True):
        axis.set_title(title, fontsize=8)
    return figure


def encodings(run: dict[str, Any]) -> Figure | None:
    """t-SNE of the pooled encodings of the test images, one panel a student.

    Args:
        run: A job of MEMD.
    """
    scores = pd.read_csv(run["folder"] / "scores.csv")
    with np.load(run["folder"] / "encodings.npz") as stored:
        kept = {name: stored[name] for name in stored.files}
    if not kept:
        return None
    figure, axes = _panels(len(kept))
    for axis, (name, values) in zip(axes, kept.items(), strict=True):
        part = reported(scores[(scores.tested_on == run["dataset"]) & (scores.detector == name)])
        points = TSNE(random_state=0, perplexity=min(30, len(values) // 4)).fit_transform(values)
        for class_name, rows in part.reset_index(drop=True).groupby("class"):
            marker = "x" if rows.label.iloc[0] else "o"
            axis.scatter(*points[rows.index].T, s=9, marker=marker, alpha=0.7, label=class_name)
        axis.set(title=f"{run['method']}, {TITLE[name]}: encodings (t-SNE)", xticks=[], yticks=[])
        axis.legend(fontsize=7)
    return figure


def training(run: dict[str, Any]) -> Figure | None:
    """Losses and temperatures over the epochs of both stages.

    Args:
        run: A job of MEMD.
    """
    path = run["folder"] / "log.csv"
    if not path.exists():
        return None
    log = pd.read_csv(path)
    names = [str(column) for column in log.columns]
    panels = {
        "teacher": [c for c in names if c.startswith("teacher_") and c.endswith("_loss")],
        "students": [c for c in names if c.startswith("students_") and c.endswith("_loss")],
        "temperature": [c for c in names if c.endswith("_temperature")],
    }
    panels = {name: columns for name, columns in panels.items() if columns}
    if not panels:
        return None
    figure, axes = _panels(len(panels))
    for axis, (name, columns) in zip(axes, panels.items(), strict=True):
        for column in columns:
            values = log[["epoch", column]].dropna().groupby("epoch")[column].mean()
            axis.plot(values.index + 1, values, marker=".", label=column.split("_", 1)[1].replace("_", " "))
        axis.set(title=name, xlabel="epoch", yscale="linear" if name == "temperature" else "log")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(fontsize=7)
    return figure


def latency(scores: pd.DataFrame, facts: list[dict[str, Any]]) -> Figure | None:
    """Image AUROC, mean of both modalities, against the latency of the deployed model, one panel a data set.

    Args:
        scores: All scores.
        facts: All jobs.
    """
    costs = {f["method"]: f["cost"] for f in reversed(facts) if f["cost"]}
    metrics = tables.image_metrics(scores[(scores.dataset == scores.tested_on) & scores.detector.isin(list(TITLE))])
    means = 100 * metrics.groupby(["dataset", "method"], sort=False).auroc.mean()
    if not costs:
        return None
    figure, axes = _panels(metrics.dataset.nunique())
    colours = _colours(scores)
    named: dict[Any, Any] = {}
    for axis, (dataset, own) in zip(axes, means.groupby("dataset", sort=False), strict=True):
        for method, auroc in own.droplevel("dataset").items():
            cost = costs.get(method)
            if cost is None:
                continue
            milliseconds = cost.get("openvino_ms") or cost["torch_ms"]
            note = method if "openvino_ms" in cost else f"{method} (PyTorch)"
            marker = "*" if method == "MEMD" else "o"
            named[note] = axis.scatter(milliseconds, auroc, 50, color=colours[method], marker=marker)
        axis.set(
            xscale="log", xlabel="milliseconds an image, OpenVINO, batch 1", ylabel="image AUROC in %", title=dataset
        )
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(list(named.values()), list(named), loc="outside right upper", fontsize=8)
    return figure


def critical_differences(scores: pd.DataFrame) -> Figure | None:
    """Mean rank of each method over data sets and modalities; a bar joins those that do not differ.

    Args:
        scores: All scores, of one split for each data set.

    Source:
        Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006.
    """
    table = significance.ranks(scores)
    if len(table) < 3 or table.shape[1] < 2:
        return None
    means = table.mean(axis=1).sort_values()
    apart = significance.critical_difference(*table.shape)
    figure = Figure(figsize=(7, 0.6 + 0.24 * len(means)), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(means))
    axis.scatter(means, places, color=["black" if name == "MEMD" else NORMAL for name in means.index], zorder=2)
    for start, first in enumerate(means):
        last = int((means <= first + apart).sum()) - 1
        # A bar inside of the one before says nothing new.
        if last > start and (start == 0 or last > int((means <= means.iloc[start - 1] + apart).sum()) - 1):
            axis.plot([first, means.iloc[last]], [start - 0.35] * 2, color=ABNORMAL, linewidth=3, alpha=0.7)
    title = f"{table.shape[1]} places; ranks that lie {apart:.1f} apart differ (Nemenyi, 5 %)"
    axis.set(yticks=places, yticklabels=means.index, xlabel="mean rank, 1 is best", title=title)
    axis.title.set_fontsize(9)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    return figure


def _colours(scores: pd.DataFrame) -> dict[Any, Any]:
    """The colour of each method, in the order of the scores: black for MEMD, others come again where they are many."""
    methods = scores.method.unique()
    colours = cycle(mpl.colormaps["tab10" if len(methods) <= 10 else "tab20"].colors)
    return {method: "black" if method == "MEMD" else next(colours) for method in methods}


def _roc(labels: np.ndarray, scores: np.ndarray, grid: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    false, true, _ = roc_curve(labels, scores, sample_weight=weights)
    return np.interp(grid, false, true)


def _precision(
    labels: np.ndarray, scores: np.ndarray, grid: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=weights)
    return np.interp(grid, recall[::-1], precision[::-1])


def _panels(count: int, columns: int = 3) -> tuple[Figure, list[Any]]:
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    return figure, axes


def _grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(1.3 * columns, 1.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flatten():
        axis.set_axis_off()
    return figure, axes
