"""Tables of a benchmark, rebuilt at any time from the scores that its jobs have left."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_memd.modality import Modality

from .bootstrap import BOOTSTRAPS
from .splits import CHOOSING, TEST, reported

PAPER_RESULTS = {
    "STPM": {"wli": (70.71, 73.52), "nbi": (69.39, 70.98)},
    "RD4AD": {"wli": (71.80, 74.83), "nbi": (73.20, 78.26)},
    "CMP": {"wli": (77.97, 80.09), "nbi": (76.27, 73.68)},
    "SimpleNet": {"wli": (72.97, 72.29), "nbi": (69.23, 63.86)},
    "D2UE": {"wli": (78.80, 78.60), "nbi": (64.36, 72.85)},
    "EDC": {"wli": (72.29, 71.02), "nbi": (73.12, 70.01)},
    "SCRD4AD": {"wli": (73.88, 60.65), "nbi": (73.02, 68.33)},
    "MMRAD": {"wli": (71.73, 68.91), "nbi": (71.73, 68.91)},
    "MEMD": {"wli": (80.84, 83.46), "nbi": (81.16, 82.74)},
}
"""AUROC and average precision in percent on Kvasir V2, from table 3 of the paper."""

KEYS = ["dataset", "tested_on", "split", "method", "detector"]


def load_scores(output: Path) -> pd.DataFrame:
    """Read the scores of all finished jobs.

    Args:
        output: Folder of the benchmark.

    Returns:
        One row for each image, detector and job: ``dataset, tested_on, split, method, group, seed, detector, image,
        class, label, score``.

    Raises:
        FileNotFoundError: If no job has finished there.
    """
    frames = []
    for facts in load_facts(output):
        frame = pd.read_csv(facts["folder"] / "scores.csv", dtype={"image": str, "class": str})
        frames.append(frame.assign(**{key: facts[key] for key in ("dataset", "method", "group", "seed")}))
    return pd.concat(frames, ignore_index=True)


def load_facts(output: Path) -> list[dict[str, Any]]:
    """Read all that finished jobs have left besides scores, and the ``folder`` of each.

    Args:
        output: Folder of the benchmark.

    Raises:
        FileNotFoundError: If no job has finished there.
        ValueError: If a job is of an older version, which tested on other images.
    """
    files = sorted((output / "runs").glob("*/*/*/result.json"))
    if not files:
        msg = f"{output} holds no finished job; run 'anomalib-memd benchmark --output {output}' first."
        raise FileNotFoundError(msg)
    facts = [json.loads(file.read_text(encoding="utf-8")) | {"folder": file.parent} for file in files]
    older = [f for f in facts if "splits" not in f]
    if older:
        msg = f"{older[0]['folder']} is of a version before 0.3; run the benchmark into another folder by --output."
        raise ValueError(msg)
    return sorted(facts, key=lambda f: (f.get("order", 0), f["modality"] == Modality.NBI.value))


def groups(output: Path) -> dict[str, str]:
    """Group, or family, of each method of a benchmark."""
    return {facts["method"]: facts["group"] for facts in load_facts(output)}


def image_metrics(scores: pd.DataFrame) -> pd.DataFrame:
    """Image AUROC and average precision of every detector and seed.

    Args:
        scores: See :func:`load_scores`.

    Returns:
        Columns ``dataset, tested_on, split, method, detector, seed, auroc, ap``, in [0, 1].
    """
    names = [*KEYS, "seed"]
    return pd.DataFrame(
        [
            dict(zip(names, key, strict=True))
            | {"auroc": roc_auc_score(own.label, own.score), "ap": average_precision_score(own.label, own.score)}
            for key, own in scores.groupby(names, sort=False)
        ]
    )


def class_metrics(scores: pd.DataFrame) -> pd.DataFrame:
    """Image AUROC and average precision of each abnormal class against all normal images.

    Args:
        scores: See :func:`load_scores`.

    Returns:
        Columns ``dataset, tested_on, split, method, detector, seed, class, auroc, ap``.
    """
    parts, tests = [], pd.MultiIndex.from_frame(scores[["tested_on", "split"]])
    for name in scores[scores.label == 1]["class"].unique():
        abnormal = scores["class"] == name
        tested = tests.isin(tests[abnormal])  # Others have no image of it.
        parts.append(image_metrics(scores[tested & ((scores.label == 0) | abnormal)]).assign(**{"class": name}))
    return pd.concat(parts, ignore_index=True)


def comparison(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean, spread and interval of every detector.

    Args:
        scores: See :func:`load_scores`.

    Returns:
        Columns ``dataset, tested_on, split, method, detector, seeds``, then ``auroc, auroc_std, ap, ap_std`` over
        seeds and ``auroc_low, auroc_high, ap_low, ap_high``, the 95 % bootstrap intervals over images.
    """
    metrics = image_metrics(scores)
    table = (
        metrics.groupby(KEYS, sort=False)
        .agg(
            seeds=("seed", "nunique"),
            auroc=("auroc", "mean"),
            auroc_std=("auroc", "std"),
            ap=("ap", "mean"),
            ap_std=("ap", "std"),
        )
        .reset_index()
    )
    images = {key: by_image(group) for key, group in scores.groupby(KEYS, sort=False)}
    for metric, bootstrap in BOOTSTRAPS.items():
        drawn = [bootstrap(*images[key]) for key in table[KEYS].itertuples(index=False, name=None)]
        table[f"{metric}_low"], table[f"{metric}_high"] = np.quantile(drawn, [0.025, 0.975], axis=1)
    return table


def drops(comparison: pd.DataFrame) -> pd.DataFrame:
    """What each method loses from images that were chosen by to ``test``: how far its choices have fitted the former.

    Args:
        comparison: See :func:`comparison`.

    Returns:
        Columns ``dataset, tested_on, method, detector``, the mean image AUROC on each split, ``val``, ``dev`` and
        ``test`` as far as there is one, and ``val_drop`` and ``dev_drop``, its difference to that on ``test``.
    """
    names = [key for key in KEYS if key != "split"]
    wide = comparison.set_index(KEYS).auroc.unstack("split").reindex(columns=[*CHOOSING, TEST])
    order = comparison.drop_duplicates(names).set_index(names).index
    wide = wide.reindex(order).dropna(axis=1, how="all")
    for split in CHOOSING:
        if split in wide and TEST in wide:
            wide[f"{split}_drop"] = wide[split] - wide[TEST]
    return wide.reset_index()


def by_image(group: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(N,)`` and scores ``(S, N)`` of one detector, images in the order of their names."""
    wide = group.pivot_table(index=["image", "label"], columns="seed", values="score", sort=True)
    return wide.index.get_level_values("label").to_numpy(), wide.to_numpy().T


def contribution(output: Path, method: str = "MEMD") -> pd.DataFrame:
    """Modality contribution (table 6 of the paper): which student judges which images right.

    Args:
        output: Folder of the benchmark.
        method: A paired method.

    Returns:
        Columns ``dataset, seed, wli_alone, nbi_alone, both, neither`` (images), ``wli_contribution`` and
        ``nbi_contribution`` (its own and both, of all that at least one judges right).
    """
    rows = []
    for facts in load_facts(output):
        if facts["method"] != method or not set(Modality) <= set(facts["thresholds"]):
            continue
        scores = pd.read_csv(facts["folder"] / "scores.csv")
        own = reported(scores[scores.tested_on == facts["dataset"]])
        right = {}
        for modality in Modality:
            part = own[own.detector == modality.value].set_index("image")
            right[modality] = (part.score > facts["thresholds"][modality.value]) == (part.label == 1)
        wli, nbi = (right[m].sort_index().to_numpy() for m in Modality)
        alone_wli, alone_nbi, both = (wli & ~nbi).sum(), (nbi & ~wli).sum(), (wli & nbi).sum()
        total = max(1, alone_wli + alone_nbi + both)
        rows.append(
            {
                "dataset": facts["dataset"],
                "seed": facts["seed"],
                "wli_alone": alone_wli,
                "nbi_alone": alone_nbi,
                "both": both,
                "neither": len(wli) - alone_wli - alone_nbi - both,
                "wli_contribution": (alone_wli + both) / total,
                "nbi_contribution": (alone_nbi + both) / total,
            }
        )
    return pd.DataFrame(rows)


def costs(output: Path) -> pd.DataFrame:
    """What each method costs, as far as it was measured.

    Args:
        output: Folder of the benchmark.

    Returns:
        One row for each method: peak memory in GB, latency in milliseconds, stored values in millions, size in MB,
        seconds of training on each data set, and of those allowed where there is a limit.
    """
    rows: dict[str, dict[str, Any]] = {}
    for facts in load_facts(output):
        row = rows.setdefault(facts["method"], {"method": facts["method"]})
        for kind, seconds in (("train_s", facts["training_seconds"]), ("limit_s", facts.get("max_time"))):
            if seconds is not None:
                row.setdefault("_seconds", {}).setdefault(f"{kind} {facts['dataset']}", []).append(seconds)
        row["memory_gb"] = max(row.get("memory_gb", 0), facts["peak_memory_bytes"] / 1e9)
        cost = facts["cost"]
        if cost and "torch_ms" not in row:
            row |= {"torch_ms": cost["torch_ms"], "openvino_ms": cost.get("openvino_ms")}
            row["parameters_m"] = cost["parameters"] / 1e6 if "parameters" in cost else None
            row["file_mb"] = cost["file_bytes"] / 1e6 if "file_bytes" in cost else None
    for row in rows.values():
        row |= {name: float(np.mean(values)) for name, values in row.pop("_seconds").items()}
    return pd.DataFrame(list(rows.values()))


def trainings(output: Path) -> pd.DataFrame:
    """How the training of each method that learns ended.

    Args:
        output: Folder of the benchmark.

    Returns:
        Columns ``dataset, method, modality, seed, epochs, batches, ended_by, seconds, first_loss, last_loss``; the
        losses are those on held-back images. Of a training of several phases, batches and reasons of all are listed.
    """
    rows = []
    for facts in load_facts(output):
        losses = [loss for _, loss in facts.get("held_back_loss", [])]
        if losses or set(facts.get("ended_by", ())) - {"steps"}:
            names = ("dataset", "method", "modality", "seed", "epochs")
            ends = {"batches": ", ".join(map(str, facts["batches"])), "ended_by": ", ".join(facts["ended_by"])}
            curve = {"first_loss": losses[0], "last_loss": losses[-1]} if losses else {}
            rows.append({name: facts[name] for name in names} | ends | {"seconds": facts["training_seconds"]} | curve)
    return pd.DataFrame(rows)


def pixel_metrics(output: Path) -> pd.DataFrame:
    """Pixel metrics, mean and spread over seeds, where the data set has masks.

    Args:
        output: Folder of the benchmark.

    Returns:
        Columns ``dataset, tested_on, split, method, detector``, then mean and standard deviation of pixel AUROC and
        AUPRO, and, where there is a network that segments, of the overlap of its masks.
    """
    rows = [
        dict(zip(KEYS, (f["dataset"], tested_on, split, f["method"], detector), strict=True)) | values
        for f in load_facts(output)
        for tested_on, splits in f["pixel_metrics"].items()
        for split, detectors in splits.items()
        for detector, values in detectors.items()
    ]
    if not rows:
        return pd.DataFrame(columns=[*KEYS, "pixel_AUROC", "pixel_AUPRO"])
    table = pd.DataFrame(rows)
    metrics = [name for name in table.columns if name not in KEYS]
    names = {name: (name, "mean") for name in metrics} | {f"{name}_std": (name, "std") for name in metrics}
    return table.groupby(KEYS, sort=False).agg(**names).reset_index()
