"""Splits: balanced, disjoint, stable, and refused where they are wrong."""

import pandas as pd
import pytest

from anomalib_memd.data.split import SplitError, has_normal_images_alone, make_split, read_split, write_split

NORMAL, ABNORMAL = ["a", "b", "c"], ["x", "y", "z"]


@pytest.fixture
def root(tmp_path):
    for name in NORMAL + ABNORMAL:
        (tmp_path / name).mkdir()
        for number in range(30):
            (tmp_path / name / f"{number:02}.jpg").touch()
    return tmp_path


def test_is_balanced_and_disjoint(root):
    split = make_split(root, NORMAL, ABNORMAL, train=30, val=10, test=21, seed=1)
    assert not split.image.duplicated().any()
    counts = split.groupby(["label", "split", "class"]).size()
    for (label, part), group in counts.groupby(level=[0, 1]):
        assert group.sum() == {"train": 30, "val": 10, "test": 21}[part]
        assert len(group) == 3
        assert group.max() - group.min() <= 1
        assert not (label == "abnormal" and part == "train")


def test_depends_on_the_seed_alone(root):
    sizes = {"train": 30, "val": 10, "test": 20}
    first = make_split(root, NORMAL, ABNORMAL, **sizes, seed=1)
    pd.testing.assert_frame_equal(first, make_split(root, NORMAL, ABNORMAL, **sizes, seed=1))
    assert not first.equals(make_split(root, NORMAL, ABNORMAL, **sizes, seed=2))


def test_survives_writing_and_reading(root):
    split = make_split(root, NORMAL, ABNORMAL, 30, 10, 20)
    write_split(split, root / "split.csv")
    read = read_split(root / "split.csv")
    assert set(map(tuple, split.to_numpy())) == set(map(tuple, read[split.columns].to_numpy()))
    assert [p.name for p in root.glob("split.csv*")] == ["split.csv"]
    assert set(read_split(root / "split.csv", ["a"], ["y"])["class"]) == {"a", "y"}


def test_names_wrong_and_empty_classes(root):
    with pytest.raises(SplitError, match="no class 'd'; it has a, b, c"):
        make_split(root, ["d"], ABNORMAL)
    (root / "empty").mkdir()
    with pytest.raises(SplitError, match="holds no image"):
        make_split(root, ["empty"], ABNORMAL)
    with pytest.raises(SplitError, match="normal and abnormal at once"):
        make_split(root, NORMAL, ["a"])
    with pytest.raises(SplitError, match="30 images, but"):
        make_split(root, NORMAL, ABNORMAL, train=1800)
    write_split(make_split(root, NORMAL, ABNORMAL, 30, 10, 20), root / "split.csv")
    with pytest.raises(SplitError, match="no abnormal class 'polyp'; its abnormal classes are x, y, z"):
        read_split(root / "split.csv", None, ["polyp"])


def change(table, row, **values):
    table = table.copy()
    for column, value in values.items():
        table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="label"), "no column label"),
        (lambda t: change(t, 0, image="a/none.jpg"), "do not exist"),
        (lambda t: pd.concat([t, change(t.iloc[:1], 0, split="test")]), "stands in it 2 times"),
        (lambda t: change(t, 0, split="holdout"), "unknown split 'holdout'"),
        (lambda t: change(t, t.index[t.split == "train"][0], label="abnormal"), "training images are abnormal"),
        (lambda t: t[t.split != "val"], "val split has no normal"),
        (lambda t: t[(t.split != "test") | (t.label == "normal")], "test split has no abnormal"),
    ],
)
def test_refuses_what_cannot_be_used(root, spoil, message):
    split = make_split(root, NORMAL, ABNORMAL, 30, 10, 20)
    spoil(split).to_csv(root / "split.csv", index=False)
    with pytest.raises(SplitError, match=message) as error:
        read_split(root / "split.csv")
    assert str(root / "split.csv") in str(error.value)


def test_a_split_of_test_images_alone_is_read(root):
    split = make_split(root, NORMAL, ABNORMAL, 30, 10, 20)
    split[split.split == "test"].to_csv(root / "split.csv", index=False)
    read = read_split(root / "split.csv")
    assert set(read.split) == {"test"}
    assert set(read.label) == {"normal", "abnormal"}
    split[(split.split == "test") & (split.label == "normal")].to_csv(root / "split.csv", index=False)
    assert has_normal_images_alone(read_split(root / "split.csv"))
    split[(split.split == "test") & (split.label == "abnormal")].to_csv(root / "split.csv", index=False)
    with pytest.raises(SplitError, match="test split has no normal"):
        read_split(root / "split.csv")


def test_abnormal_images_are_missing_altogether_or_nowhere(root):
    split = make_split(root, NORMAL, ABNORMAL, 30, 10, 20)
    split[split.label == "normal"].to_csv(root / "split.csv", index=False)
    assert has_normal_images_alone(read_split(root / "split.csv"))
    split[(split.label == "normal") | (split.split == "test")].to_csv(root / "split.csv", index=False)
    with pytest.raises(SplitError, match="val split has no abnormal"):
        read_split(root / "split.csv")
