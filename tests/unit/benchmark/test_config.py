from pathlib import Path

import pytest
import yaml
from anomalib.models import get_model  # noqa: F401  registers anomalib's models

from anomalib_memd.benchmark.config import BenchmarkConfigError, load_config
from anomalib_memd.benchmark.pipeline import Benchmark, BenchmarkJobGenerator

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
PLAIN = {
    "seeds": [0, 1],
    "datasets": {
        "a": {"class_path": "Kvasir", "init_args": {"root": "a"}},
        "b": {"class_path": "Kvasir", "init_args": {"root": "b"}},
    },
    "methods": {
        "MEMD": {"class_path": "MEMD", "paired": True},
        "Rival": {"class_path": "Padim", "seeds": [3]},
    },
    "quick": {"seeds": [7], "methods": {"MEMD": {"init_args": {"width": 16}}}},
}


def written(tmp_path, **changes):
    path = tmp_path / "benchmark.yaml"
    path.write_text(yaml.safe_dump(PLAIN | changes, sort_keys=False))
    return path


def jobs_of(config):
    return [job.task for job in BenchmarkJobGenerator(config, Path("out"))()]


def test_jobs_are_all_data_sets_methods_modalities_and_seeds(tmp_path):
    tasks = jobs_of(load_config(written(tmp_path), root="data"))
    assert {(t.dataset, t.method.name, t.modality, t.seed) for t in tasks} == {
        (dataset, *rest)
        for dataset in "ab"
        for rest in [
            ("MEMD", "paired", 0),
            ("MEMD", "paired", 1),
            ("Rival", "wli", 3),
            ("Rival", "nbi", 3),
        ]
    }
    assert all(t.datasets[t.dataset]["init_args"]["root"] == f"data/{t.dataset}" for t in tasks)
    assert all(len(t.datasets) == 1 for t in tasks)
    assert [t.latency for t in tasks if t.method.name == "MEMD"] == [True, False, False, False]
    assert [t.latency for t in tasks if t.method.name == "Rival"] == [True, False, False, False]


def test_a_method_may_name_its_data_sets(tmp_path):
    methods = {"MEMD": PLAIN["methods"]["MEMD"], "Rival": {"class_path": "Padim", "datasets": ["b"]}}
    tasks = jobs_of(load_config(written(tmp_path, methods=methods)))
    assert {(t.dataset, t.method.name) for t in tasks} == {("a", "MEMD"), ("b", "MEMD"), ("b", "Rival")}
    assert sum(t.latency for t in tasks if t.method.name == "Rival") == 1
    # A selection of data sets does not make the others unknown.
    assert not [t for t in jobs_of(load_config(written(tmp_path, methods=methods), datasets=["a"])) if t.dataset == "b"]


def test_a_method_on_an_unknown_data_set_is_an_error(tmp_path):
    path = written(tmp_path, methods={"Rival": {"class_path": "Padim", "datasets": ["c"]}})
    with pytest.raises(BenchmarkConfigError, match=r"Rival is run on c; the data sets are"):
        load_config(path)


def test_folders_of_a_data_set_are_below_the_root(tmp_path):
    folders = {"root": "a", "nbi_root": "a-nbi", "unpaired_nbi_root": "/elsewhere"}
    path = written(tmp_path, datasets={"a": {"class_path": "Kvasir", "init_args": {**folders, "modality": "nbi"}}})
    expected = {"root": "data/a", "nbi_root": "data/a-nbi", "unpaired_nbi_root": "/elsewhere", "modality": "nbi"}
    assert load_config(path, root="data").datasets["a"]["init_args"] == expected
    assert load_config(path).datasets["a"]["init_args"] == {**folders, "modality": "nbi"}


def test_cross_tests_on_every_data_set(tmp_path):
    tasks = jobs_of(load_config(written(tmp_path, cross=True)))
    assert all(list(t.datasets) == ([t.dataset, "b"] if t.dataset == "a" else [t.dataset, "a"]) for t in tasks)


def test_a_data_set_may_have_its_own_time(tmp_path):
    datasets = {name: data | ({"max_time": 7} if name == "b" else {}) for name, data in PLAIN["datasets"].items()}
    methods = PLAIN["methods"] | {"Rival": {"class_path": "Stfpm", "learns": True, "max_epochs": 9}}
    tasks = jobs_of(load_config(written(tmp_path, datasets=datasets, methods=methods, max_time=5)))
    given = {(t.method.name, t.dataset): t.max_time for t in tasks}
    assert given == {("MEMD", "a"): None, ("MEMD", "b"): None, ("Rival", "a"): 5, ("Rival", "b"): 7}


def test_a_repeated_run_takes_the_place_of_limits_in_time(tmp_path):
    path = written(
        tmp_path,
        methods=PLAIN["methods"] | {"Late": {"class_path": "Stfpm", "learns": True, "max_epochs": 9}},
        max_time="MEMD",
    )
    with pytest.raises(BenchmarkConfigError, match="before is no folder of a benchmark"):
        load_config(path, repeats=tmp_path / "before")
    (tmp_path / "before/runs").mkdir(parents=True)
    config = load_config(path, repeats=tmp_path / "before")
    given = {t.method.name: (t.max_time, t.repeats) for t in jobs_of(config)}
    assert given["Late"] == (None, str(tmp_path / "before"))
    assert given["MEMD"] == (None, None)
    assert [m.name for m in load_config(path, methods=["Late"], repeats=tmp_path / "before").methods] == ["Late"]


def test_a_chosen_method_brings_those_that_it_needs(tmp_path):
    taker = {"class_path": "MEMD", "paired": True, "teacher_of": "MEMD"}
    more = {
        "Taker": taker,
        "Heir": taker | {"teacher_of": "Taker"},
        "Late": {"class_path": "Stfpm", "learns": True, "max_epochs": 9},
    }
    path = written(tmp_path, methods=PLAIN["methods"] | more, max_time="MEMD")

    def names(*chosen):
        return [m.name for m in load_config(path, methods=list(chosen)).methods]

    assert names("Heir") == ["MEMD", "Taker", "Heir"]
    assert names("Late") == ["MEMD", "Late"]
    assert names("Rival") == ["Rival"]
    turns = Benchmark(load_config(path), tmp_path)._setup_runners()
    assert [[m.name for m in runner.generator.config.methods] for runner in turns] == [
        ["MEMD", "Rival"],
        ["Taker", "Late"],
        ["Heir"],
    ]


def test_cross_may_name_the_data_sets_that_take_part(tmp_path):
    datasets = PLAIN["datasets"] | {"c": PLAIN["datasets"]["a"]}
    tasks = jobs_of(load_config(written(tmp_path, datasets=datasets, cross=["a", "c"])))
    tested_on = {task.dataset: list(task.datasets) for task in tasks}
    assert tested_on == {"a": ["a", "c"], "b": ["b"], "c": ["c", "a"]}
    with pytest.raises(BenchmarkConfigError, match="'cross' names d; the data sets are a, b"):
        load_config(written(tmp_path, cross=["a", "d"]))


def test_the_development_of_a_data_set_is_below_the_root_too(tmp_path):
    data = PLAIN["datasets"]["a"] | {"development": {"root": "a-dev"}}
    assert load_config(written(tmp_path, datasets={"a": data}), root="data").datasets["a"]["development"] == {
        "root": "data/a-dev"
    }


def test_a_method_may_stay_out_of_cross_tests(tmp_path):
    methods = PLAIN["methods"] | {"Rival": PLAIN["methods"]["Rival"] | {"cross": False}}
    tasks = jobs_of(load_config(written(tmp_path, cross=True, methods=methods)))
    assert {(t.method.name, len(t.datasets)) for t in tasks} == {("MEMD", 2), ("Rival", 1)}


def test_quick_replaces_what_it_names(tmp_path):
    config = load_config(written(tmp_path), quick=True)
    assert config.seeds == (7,)
    assert [(m.name, m.init_args) for m in config.methods] == [("MEMD", {"width": 16})]


def test_choice_on_the_command_line(tmp_path):
    config = load_config(written(tmp_path), methods=["Rival"], datasets=["b"], seeds=[5])
    assert [(t.dataset, t.method.name, t.seed) for t in jobs_of(config)] == [("b", "Rival", 5)] * 2


def test_the_digest_changes_with_what_matters(tmp_path):
    first, *_ = jobs_of(load_config(written(tmp_path)))
    again, *_ = jobs_of(load_config(written(tmp_path)))
    methods = {"MEMD": {"class_path": "MEMD", "paired": True, "init_args": {"width": 16}}}
    (chosen,) = (t for t in jobs_of(load_config(written(tmp_path), methods=["MEMD"], datasets=["a"], seeds=[0])))
    assert chosen.digest == first.digest
    other, *_ = jobs_of(load_config(written(tmp_path, methods=methods)))
    assert first.digest == again.digest != other.digest
    assert first.folder == other.folder


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"datasets": {}}, {}, "'datasets' is missing or empty"),
        ({"colour": 1}, {}, "unknown option colour"),
        ({"methods": {"X": {"class_path": "MEMD", "epochs": 3}}}, {}, "unknown option epochs"),
        ({"methods": {"X": {}}}, {}, "X: .*class_path"),
        ({"methods": {"X": {"class_path": "MEMD", "teacher_of": "Y"}}}, {}, "X needs Y"),
        ({"max_time": "Y", "methods": {"X": {"class_path": "Stfpm", "learns": True}}}, {}, "X needs Y"),
        (
            {"methods": {"X": {"class_path": "MEMD", "teacher_of": "Y"}, "Y": {"class_path": "MEMD"}}},
            {},
            "Y, which is not among the methods before it",
        ),
        ({"methods": {"X": {"class_path": "MEMD", "modality": "uv"}}}, {}, "modality uv"),
        ({}, {"methods": ["Nobody"]}, "no methods Nobody; it has MEMD, Rival"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path, changes, options, message):
    path = written(tmp_path, **changes)
    with pytest.raises(BenchmarkConfigError, match=message) as caught:
        load_config(path, **options)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BenchmarkConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("name", "quick"),
    [
        ("benchmark", False),
        ("benchmark", True),
        ("ablation", False),
        ("ablation", True),
        ("benchmark_learned", False),
        ("benchmark_methods", False),
    ],
)
def test_the_configurations_of_the_project_are_readable(name, quick):
    tasks = jobs_of(load_config(CONFIGS / f"{name}.yaml", quick=quick))
    assert "MEMD" in {t.method.name for t in tasks}
