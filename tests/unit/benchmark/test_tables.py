import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_memd.benchmark import bootstrap, splits, tables
from anomalib_memd.benchmark.markup import titled_markdown, to_markdown, write_tables


def write_run(output, method, modality, seed, rows, rows_of_val=None, **facts):
    folder = output / "runs" / "colon" / method / f"{modality}-seed{seed}"
    folder.mkdir(parents=True)
    names = ["detector", "image", "class", "label", "score"]
    frames = [pd.DataFrame(rows_of_val or [], columns=names).assign(split="val")] if rows_of_val else []
    frames.append(pd.DataFrame(rows, columns=names).assign(split="test"))
    pd.concat(frames).assign(tested_on="colon").to_csv(folder / "scores.csv", index=False)
    known = {
        "splits": ["val", "dev", "test"],
        "digest": "0",
        "method": method,
        "group": "",
        "dataset": "colon",
        "modality": modality,
        "seed": seed,
        "training_seconds": 10.0 * (seed + 1),
        "max_time": None,
        "peak_memory_bytes": 2e9,
        "pixel_metrics": {"colon": {}},
        "thresholds": {},
        "cost": {},
        "versions": {"torch": "2"},
        "finished": "2026-01-01 00:00:00",
    }
    (folder / "result.json").write_text(json.dumps(known | facts))


def rows_of(detector, scores, labels, classes=None):
    classes = classes or ["polyp" if label else "normal" for label in labels]
    return [
        (detector, f"{c}/{i}", c, label, score)
        for i, (score, label, c) in enumerate(zip(scores, labels, classes, strict=True))
    ]


@pytest.fixture
def output(tmp_path):
    random = np.random.default_rng(0)
    labels = [0] * 20 + [1] * 30
    classes = ["normal"] * 20 + ["polyp"] * 15 + ["ulcer"] * 15
    for seed in (0, 1):
        rows = [
            row
            for detector in ("wli", "nbi", "teacher")
            for row in rows_of(detector, random.normal(np.array(labels) * 2.0), labels, classes)
        ]
        write_run(tmp_path, "MEMD", "paired", seed, rows, order=1, thresholds={"wli": 1.0, "nbi": 1.0, "teacher": 1.0})
    for modality in ("wli", "nbi"):
        rows = rows_of(modality, random.normal(np.array(labels) * 0.5), labels, classes)
        write_run(tmp_path, "Rival", modality, 0, rows, order=0, max_time=8.0)
    return tmp_path


def test_metrics_are_those_of_scikit_learn(output):
    scores = tables.load_scores(output)
    metrics = tables.image_metrics(scores).set_index(["method", "detector", "seed"])
    for key, group in scores.groupby(["method", "detector", "seed"]):
        assert metrics.auroc[key] == pytest.approx(roc_auc_score(group.label, group.score))
        assert metrics.ap[key] == pytest.approx(average_precision_score(group.label, group.score))


def test_a_class_is_measured_against_all_normal_images(output):
    scores = tables.load_scores(output)
    table = tables.class_metrics(scores).set_index(["method", "detector", "seed", "class"])
    part = scores[(scores.method == "Rival") & (scores.detector == "wli") & scores["class"].isin(["normal", "ulcer"])]
    assert table.auroc["Rival", "wli", 0, "ulcer"] == pytest.approx(roc_auc_score(part.label, part.score))
    assert set(table.index.get_level_values("class")) == {"polyp", "ulcer"}


@pytest.mark.filterwarnings("error")
def test_a_class_has_no_figure_on_data_sets_without_images_of_it(output):
    scores = tables.load_scores(output)
    bleeding = scores[scores["class"] != "ulcer"].assign(tested_on="bowel").replace({"class": {"polyp": "bleeding"}})
    table = tables.class_metrics(pd.concat([scores, bleeding]))
    assert not table.auroc.isna().any()
    assert set(zip(table.tested_on, table["class"], strict=True)) == {
        ("colon", "polyp"),
        ("colon", "ulcer"),
        ("bowel", "bleeding"),
    }


def slow_bootstrap(metric, labels, scores, draws, seed):
    """The same draws, image by image, through scikit-learn's weights."""
    random = np.random.default_rng(seed)
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    weights = np.zeros((draws, len(labels)))
    for index in (positive, negative):
        weights[:, index] = random.multinomial(len(index), np.full(len(index), 1 / len(index)), size=draws)
    return [metric(labels, scores, sample_weight=w) for w in weights]


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=12),
    st.lists(st.integers(0, 5), min_size=2, max_size=12),
    st.integers(0, 99),
)
def test_bootstrap_is_that_of_weighted_images(normal, abnormal, seed):
    labels = np.array([0] * len(normal) + [1] * len(abnormal))
    scores = np.array(normal + abnormal, dtype=float)
    for ours, reference in (
        (bootstrap.bootstrap_auroc, roc_auc_score),
        (bootstrap.bootstrap_ap, average_precision_score),
    ):
        assert ours(labels, scores, draws=5, seed=seed) == pytest.approx(
            slow_bootstrap(reference, labels, scores, 5, seed)
        )


@pytest.mark.parametrize("draw", bootstrap.BOOTSTRAPS.values())
def test_bootstrap_averages_seeds(draw):
    labels = np.array([0, 0, 0, 1, 1, 1])
    scores = np.random.default_rng(0).random((3, 6))
    alone = [draw(labels, row, draws=7) for row in scores]
    assert draw(labels, scores, draws=7) == pytest.approx(np.mean(alone, axis=0))


def test_comparison_has_mean_spread_and_interval(output):
    scores = tables.load_scores(output)
    table = tables.comparison(scores).set_index(["method", "detector"])
    metrics = tables.image_metrics(scores)
    own = metrics[(metrics.method == "MEMD") & (metrics.detector == "nbi")].auroc
    row = table.loc["MEMD", "nbi"]
    assert row.seeds == 2
    assert row.auroc == pytest.approx(own.mean())
    assert row.auroc_std == pytest.approx(own.std(ddof=1))
    assert row.auroc_low < row.auroc < row.auroc_high
    assert row.ap_low < row.ap < row.ap_high


def test_how_trainings_ended_is_told_with_their_losses(output):
    assert tables.trainings(output).empty
    rows = rows_of("wli", [0, 1], [0, 1])
    ends = {"epochs": 3, "batches": [4, 9], "ended_by": ["loss", "time"], "held_back_loss": [[2, 0.5], [9, 0.25]]}
    write_run(output, "Learner", "wli", 0, rows, order=2, **ends)
    row = tables.trainings(output).iloc[0]
    assert (row.method, row.batches, row.ended_by) == ("Learner", "4, 9", "loss, time")
    assert (row.first_loss, row.last_loss, row.epochs) == (0.5, 0.25, 3)
    assert any("| loss, time |" in line for line in titled_markdown(write_tables(output)).splitlines())


def test_cost_stands_beside_what_it_buys(output):
    table = next(table for title, table in write_tables(output).items() if "image AUROC / average" in title)
    table = table.set_index("method")
    assert table["training, s"][["MEMD", "Rival"]].tolist() == ["15", "10"]
    assert table["memory, GB"][["MEMD", "Rival"]].tolist() == ["2.0", "2.0"]
    assert table["training, s"]["MEMD (paper)"] == ""


def test_contribution_counts_images(tmp_path):
    labels = [0, 0, 1, 1]
    rows = rows_of("wli", [0, 2, 2, 0], labels) + rows_of("nbi", [0, 0, 2, 0], labels)
    write_run(tmp_path, "MEMD", "paired", 0, rows, thresholds={"wli": 1.0, "nbi": 1.0})
    row = tables.contribution(tmp_path).iloc[0]
    assert (row.wli_alone, row.nbi_alone, row.both, row.neither) == (0, 1, 2, 1)
    assert row.wli_contribution == pytest.approx(2 / 3)
    assert row.nbi_contribution == 1


def test_costs_tell_the_time_taken_and_the_time_allowed(output):
    costs = tables.costs(output).set_index("method")
    assert costs["train_s colon"].to_dict() == {"MEMD": 15.0, "Rival": 10.0}
    assert costs["limit_s colon"].dropna().to_dict() == {"Rival": 8.0}
    assert set(costs.memory_gb) == {2.0}


def test_tables_are_rebuilt_from_scores_alone(output):
    first = titled_markdown(write_tables(output))
    for file in (output / "tables").iterdir():
        file.unlink()
    assert titled_markdown(write_tables(output)) == first
    assert (output / "tables" / "tables.md").read_text() == first
    assert "\\begin{tabular}" in (output / "tables" / "tables.tex").read_text()
    stored = pd.read_csv(output / "tables" / "comparison.csv")
    assert stored.auroc.to_numpy() == pytest.approx(tables.comparison(tables.load_scores(output)).auroc.to_numpy())


def test_the_table_marks_the_best_and_shows_the_paper_apart(output):
    markdown = titled_markdown(write_tables(output))
    memd = next(line for line in markdown.splitlines() if line.startswith("| MEMD |"))
    assert memd.count("¹") == 2
    assert "¹" not in next(line for line in markdown.splitlines() if line.startswith("| Rival |"))
    assert "| STPM (paper) |" in markdown
    assert "paper, Kvasir V2" in markdown


@pytest.fixture
def chosen_on_val(tmp_path):
    """A method that is perfect on val and at chance on test."""
    labels = [0, 0, 1, 1]
    on_val, on_test = (rows_of("wli", scores, labels) for scores in ([0, 1, 2, 3], [0, 1, 0, 1]))
    write_run(tmp_path, "MEMD", "paired", 0, on_test, rows_of_val=on_val)
    return tmp_path


def test_the_drop_is_what_a_method_loses_on_images_that_nobody_chose_by(chosen_on_val):
    row = tables.drops(tables.comparison(tables.load_scores(chosen_on_val))).iloc[0]
    assert (row.val, row.test, row.val_drop) == (1.0, 0.5, 0.5)
    assert "dev" not in row
    lines = titled_markdown(write_tables(chosen_on_val)).splitlines()
    assert "| trained on | tested on | method | detector | val | test | val - test |" in lines
    assert "| colon | colon | MEMD | wli | 100.0 | 50.0 | +50.0 |" in lines
    assert any(line.startswith("### colon (val, to choose by): image AUROC") for line in lines)
    assert any(line.startswith("### colon (test): image AUROC") for line in lines)


def test_figures_show_test_where_it_was_opened(chosen_on_val):
    scores = tables.load_scores(chosen_on_val)
    assert set(splits.reported(scores).split) == {"test"}
    assert set(splits.reported(scores[scores.split == "val"]).split) == {"val"}


def test_results_of_older_versions_are_refused_by_name(output):
    path = next(output.glob("runs/*/*/*/result.json"))
    facts = json.loads(path.read_text())
    del facts["splits"]
    path.write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=f"{path.parent} is of a version before 0.3"):
        tables.load_scores(output)


def test_methods_stand_in_the_order_of_the_configuration(output):
    assert list(tables.load_scores(output).method.unique()) == ["Rival", "MEMD"]


def test_an_empty_folder_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no finished job"):
        tables.load_scores(tmp_path)


def test_markdown_leaves_gaps_empty():
    table = pd.DataFrame([{"a": "1"}, {"b": "2"}])
    assert to_markdown(table) == "| a | b |\n| --- | --- |\n| 1 |  |\n|  | 2 |"


def test_an_ablation_is_listed_by_group_with_what_each_variant_loses(tmp_path):
    labels = [0, 0, 1, 1]
    both = {"wli": [0, 1, 2, 3], "nbi": [0, 1, 2, 3]}
    worse = {"wli": [0, 2, 1, 3], "nbi": [0, 1, 2, 3]}
    for order, (name, scores) in enumerate({"MEMD": both, "no fusion": worse}.items()):
        rows = [row for detector, values in scores.items() for row in rows_of(detector, values, labels)]
        pixels = {d: {"pixel_AUROC": 0.9 - 0.1 * order * (d == "nbi"), "pixel_AUPRO": 0.5} for d in scores}
        group = "fusion" if order else ""
        write_run(
            tmp_path, name, "paired", 0, rows, order=order, group=group, pixel_metrics={"colon": {"test": pixels}}
        )
    lines = titled_markdown(write_tables(tmp_path, ablation=True)).splitlines()
    assert "| group | variant | WLI | NBI | loss of WLI | loss of NBI |" in lines
    image, pixel = (line for line in lines if line.startswith("| fusion | no fusion |"))
    assert image.endswith("| 25.0 | 0.0 |")
    assert pixel.endswith("| 90.0 / 50.0 | 80.0 / 50.0 | 0.0 | 10.0 |")
    assert not any("(paper)" in line for line in lines)
