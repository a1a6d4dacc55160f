"""Leads, corrected p values, ranks and families."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_memd.benchmark import figures, significance, tables
from tests.unit.benchmark.test_tables import output, rows_of, write_run  # noqa: F401  a fixture


def test_leads_are_over_each_method_and_told_from_chance(output):  # noqa: F811
    scores = tables.load_scores(output)
    middling = scores[scores.method == "Rival"].copy()
    middling["score"] += 0.8 * middling.label
    table = significance.leads(pd.concat([scores, middling.assign(method="Middling")]))
    means = tables.comparison(pd.concat([scores, middling.assign(method="Middling")])).set_index(["method", "detector"])
    assert len(table) == 2 * 2 * 2
    for row in table.itertuples():
        expected = means[row.metric]["MEMD", row.detector] - means[row.metric][row.rival, row.detector]
        assert row.lead == pytest.approx(expected)
        assert row.low < row.lead < row.high
        assert row.p <= row.p_holm <= min(1, 2 * row.p)
        assert row.best == (row.rival == "Middling")
    assert table[table.rival == "Rival"].p.max() < 0.05


def test_a_twin_is_no_better(output):  # noqa: F811
    scores = tables.load_scores(output)
    same = scores[scores.method == "MEMD"]
    assert (significance.leads(pd.concat([same, same.assign(method="Twin")])).p > 0.9).all()
    assert significance.leads(same).empty


def test_holm_is_the_worked_example():
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_rejects_as_the_procedure_does(values):
    """Step by step: the smallest against alpha / n, the next against alpha / (n - 1), until one is not rejected."""
    corrected = significance.holm(values)
    for alpha in (0.013, 0.05, 0.31):
        rejected = set()
        for step, place in enumerate(np.argsort(values, kind="stable")):
            if values[place] > alpha / (len(values) - step):
                break
            rejected.add(int(place))
        near = any(abs(c - alpha) < 1e-9 for c in corrected)
        assert near or rejected == {place for place, c in enumerate(corrected) if c <= alpha}


def test_the_critical_difference_is_that_of_the_table():
    """Demsar's table 5: q of 2, 5 and 10 classifiers at 0.05."""
    for methods, q in ((2, 1.960), (5, 2.728), (10, 3.164)):
        expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
        assert significance.critical_difference(methods, 14) == pytest.approx(expected, rel=1e-3)


@pytest.fixture
def three(tmp_path):
    """Three methods: one tells all apart, one some, one none."""
    labels = [0, 0, 0, 1, 1, 1]
    scores = {"MEMD": [0, 1, 2, 3, 4, 5], "Good": [0, 1, 3, 2, 4, 5], "Bad": [5, 4, 3, 2, 1, 0]}
    for order, (name, values) in enumerate(scores.items()):
        rows = [row for detector in ("wli", "nbi") for row in rows_of(detector, values, labels)]
        write_run(tmp_path, name, "paired", 0, rows, order=order, group="this paper" if name == "MEMD" else "others")
    return tmp_path


def test_own_variants_are_no_rivals_of_others(tmp_path):
    """A variant that is ahead of every other method does not hide how far the best of these is behind."""
    labels = [0, 0, 0, 1, 1, 1]
    scores = {
        "MEMD": [0, 1, 2, 3, 4, 5],
        "Variant": [0, 1, 3, 2, 4, 5],
        "Good": [0, 2, 3, 1, 4, 5],
        "Bad": [5, 4, 3, 2, 1, 0],
    }
    for order, (name, values) in enumerate(scores.items()):
        family = "this paper" if name in ("MEMD", "Variant") else ""
        write_run(tmp_path, name, "wli", 0, rows_of("wli", values, labels), order=order, group=family)
    found = significance.leads(tables.load_scores(tmp_path)).set_index(["metric", "rival"])
    assert found.best.loc["auroc"].to_dict() == {"Variant": True, "Good": True, "Bad": False}
    assert found.lead["auroc", "Good"] == pytest.approx(2 / 9)
    assert found.lead["auroc", "Variant"] == pytest.approx(1 / 9)


def test_ranks_are_by_image_auroc(three):
    table = significance.ranks(tables.load_scores(three))
    assert table.mean(axis=1).to_dict() == {"MEMD": 1.0, "Good": 2.0, "Bad": 3.0}
    assert table.shape == (3, 2)
    assert significance.friedman(table) == pytest.approx(
        np.exp(-2), rel=1e-6
    )  # Chi-squared of 4, two degrees of freedom.
    assert np.isnan(significance.friedman(table.iloc[:2]))
    figure = figures.critical_differences(tables.load_scores(three))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["MEMD", "Good", "Bad"]


def test_families_have_a_mean_and_a_best(three):
    found = significance.families(tables.comparison(tables.load_scores(three)), tables.groups(three))
    own = found[(found.family == "others") & (found.detector == "wli")].iloc[0]
    assert (own.methods, own.best_method) == (2, "Good")
    assert own["mean"] == pytest.approx((8 / 9 + 0) / 2)
    assert own.best == pytest.approx(8 / 9)
    assert significance.families(tables.comparison(tables.load_scores(three)), {}).empty
