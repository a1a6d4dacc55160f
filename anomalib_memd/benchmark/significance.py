"""What a benchmark's differences are worth: leads with corrected p values, ranks over data sets, families."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from anomalib_memd.modality import Modality

from .bootstrap import BOOTSTRAPS
from .tables import by_image, image_metrics

PLACE = ["dataset", "tested_on", "split", "detector"]
"""What tells one comparison of methods from another."""


def leads(scores: pd.DataFrame, method: str = "MEMD") -> pd.DataFrame:
    """How far a method is ahead of each other one, on the same images.

    Args:
        scores: See :func:`~.tables.load_scores`.
        method: The method.

    Returns:
        Columns ``dataset, tested_on, split, detector, metric, rival, best, lead, low, high, p, p_holm``: the difference
        of image AUROC or average precision, its 95 % interval, the two-sided p value of a paired bootstrap over images,
        and that corrected for the number of other methods. ``best`` tells the rival that is best by the metric: one of
        the other families, and one of the method's own, if there are any.
    """
    rows = []
    scores = scores[scores.detector.isin([modality.value for modality in Modality])]
    for place, group in scores.groupby(PLACE, sort=False):
        groups: dict[Any, pd.DataFrame] = dict(list(group.groupby("method", sort=False)))
        if method not in groups or len(groups) < 2:
            continue
        means = image_metrics(group).groupby("method", sort=False)[list(BOOTSTRAPS)].mean()
        family = group.groupby("method")["group"].first()
        for metric, bootstrap in BOOTSTRAPS.items():
            own = bootstrap(*by_image(groups[method]))
            others = means[metric].drop(method)
            variant = (family[others.index] == family[method]) & (family[method] != "")
            best = others.groupby(variant).idxmax().tolist()
            found = []
            for rival in others.index:
                difference = own - bootstrap(*by_image(groups[rival]))
                low, high = np.quantile(difference, [0.025, 0.975])
                below = (difference < 0).mean() + 0.5 * (difference == 0).mean()
                p = min(1.0, 2 * min(below, 1 - below) + 1 / len(difference))
                found.append({"rival": rival, "best": rival in best, "low": low, "high": high, "p": p})
            corrected = holm([row["p"] for row in found])
            for row, p_holm in zip(found, corrected, strict=True):
                lead = means[metric][method] - means[metric][row["rival"]]
                rows.append(
                    dict(zip(PLACE, place, strict=True)) | {"metric": metric, "lead": lead, "p_holm": p_holm} | row
                )
    return pd.DataFrame(rows)


def holm(values: list[float]) -> list[float]:
    """P values corrected for their number, so that the chance of any false finding stays what it was for one.

    Args:
        values: P values.

    Source:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979.
    """
    p = np.asarray(values, float)
    order = p.argsort()
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    corrected = np.empty_like(p)
    corrected[order] = steps
    return corrected.tolist()


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Rank of each method by image AUROC on each data set and modality: 1 is best, equal ones share.

    Args:
        scores: See :func:`~.tables.load_scores`; of one split for each data set.

    Returns:
        One row a method, one column for each ``(tested_on, detector)`` that all methods were tested on.
    """
    own = scores[(scores.dataset == scores.tested_on) & scores.detector.isin([m.value for m in Modality])]
    metrics = image_metrics(own).groupby(["method", "tested_on", "detector"], sort=False).auroc.mean()
    wide = metrics.unstack(["tested_on", "detector"]).dropna(axis=1)
    return wide.apply(lambda column: pd.Series(rankdata(-column), column.index))


def critical_difference(methods: int, places: int, alpha: float = 0.05) -> float:
    r"""How far two mean ranks must lie apart to differ (Nemenyi's test).

    .. math::
        \mathrm{CD} = q_\alpha \sqrt{\frac{k (k + 1)}{6 N}}

    Args:
        methods: Number :math:`k` of methods, at least 2.
        places: Number :math:`N` of data sets and modalities.
        alpha: Chance of a false finding.

    Source:
        Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006.
    """
    quantile = studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * places)))


def friedman(table: pd.DataFrame) -> float:
    """P value of all methods being equal (Friedman's test); ``nan`` for fewer than three methods or two places.

    Args:
        table: See :func:`ranks`.
    """
    if len(table) < 3 or table.shape[1] < 2:
        return float("nan")
    return float(friedmanchisquare(*table.to_numpy()).pvalue)


def families(comparison: pd.DataFrame, groups: dict[str, str]) -> pd.DataFrame:
    """Image AUROC by family of methods: the mean of all, and the best of them.

    Args:
        comparison: See :func:`~.tables.comparison`; of one split for each data set.
        groups: Family of each method; methods without one are left out.

    Returns:
        Columns ``family, tested_on, detector, methods, mean, best, best_method``; the best families first.
    """
    own = comparison[(comparison.dataset == comparison.tested_on) & (comparison.detector != "teacher")]
    own = own.assign(family=own.method.map(groups).fillna(""))
    rows = [
        {
            "family": family,
            "tested_on": tested_on,
            "detector": detector,
            "methods": len(part),
            "mean": part.auroc.mean(),
            "best": part.auroc.max(),
            "best_method": part.method.iloc[int(part.auroc.argmax())],
        }
        for (family, tested_on, detector), part in own[own.family != ""].groupby(
            ["family", "tested_on", "detector"], sort=False
        )
    ]
    return (
        pd.DataFrame(rows).sort_values(["tested_on", "detector", "best"], ascending=[True, False, False])
        if rows
        else pd.DataFrame()
    )
