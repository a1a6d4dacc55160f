"""Folders of normal and abnormal images that nobody has split."""

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomalib_memd import Kvasir
from anomalib_memd.data import folder_split
from anomalib_memd.data.folder_split import ABNORMAL, NORMAL, SHARES, split_folder
from anomalib_memd.data.split import SplitError


def write(path, grey=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), grey, dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Suffixes in any case, spaces and Unicode in names, folders of any depth."""
    for number in range(20):
        write(tmp_path / "normal" / f"pat{number % 10} übung" / "ileum" / f"Bild {number}.JPG")
    for number in range(8):
        write(tmp_path / "abnormal" / "polyp" / f"pat{number + 10} x{number}.Png")
        write(tmp_path / "masks" / "polyp" / f"pat{number + 10} x{number}.png")
    (tmp_path / "normal" / "notes.txt").write_text("no image")
    return tmp_path


def test_it_is_split_when_it_is_first_used_and_the_same_ever_after(folder, caplog):
    data = Kvasir(folder, modality="wli", num_workers=0, group_pattern="pat[0-9]+")
    with caplog.at_level(logging.INFO):
        data.prepare_data()
    written = (folder / "split.csv").read_bytes()
    assert str(folder / "split.csv") in caplog.text
    data.setup()
    assert len(data.train_data) == 12
    assert set(data.val_data.samples.label_index) == set(data.test_data.samples.label_index) == {0, 1}
    assert data.test_data.samples.mask_path[data.test_data.samples.label_index == 1].str.endswith(".png").all()
    assert set(data.test_data.samples.class_name) <= {"polyp", *(f"pat{n} übung" for n in range(10))}
    data.prepare_data()
    assert (folder / "split.csv").read_bytes() == written
    (folder / "split.csv").unlink()
    data.prepare_data()
    assert (folder / "split.csv").read_bytes() == written
    assert not split_folder(folder, seed=1).equals(split_folder(folder, seed=0))


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4)), min_size=6, max_size=30),
    st.integers(0, 5),
)
def test_no_group_stands_in_two_splits_and_training_is_normal(sizes, seed):
    rows = pd.DataFrame(
        [
            {"image": f"{label}/{group}-{number}.png", "label": label, "group": str(group)}
            for group, own in enumerate(sizes)
            for label, count in zip((NORMAL, ABNORMAL), own, strict=True)
            for number in range(count)
        ]
    )
    assigned = folder_split._assign(rows, seed)
    assert set(assigned) == set(rows.group)
    assert set(assigned.values()) <= set(SHARES)
    # Nothing is far from its share: by no more than the largest group.
    normal = rows[rows.label == NORMAL]
    normal_groups = set(rows.group) - set(rows[rows.label == ABNORMAL].group)
    if len(normal_groups) == len(sizes):
        largest = normal.group.value_counts().max()
        shares = normal.group.map(assigned).value_counts()
        for split, share in SHARES.items():
            assert abs(shares.get(split, 0) - share * len(normal)) <= 2 * largest


def test_abnormal_images_of_a_group_that_is_needed_for_training_are_left_out(tmp_path):
    for patient in range(10):  # Everybody has both.
        for number in range(4):
            write(tmp_path / NORMAL / f"{patient}_{number}.png")
        write(tmp_path / ABNORMAL / f"{patient}_9.png")
    split = split_folder(tmp_path, group_pattern=r"/(\d)_")
    assert (split.groupby("group")["split"].nunique() == 1).all()
    assert set(split[split.split == "train"].label) == {NORMAL}
    assert split[split.label == NORMAL].split.value_counts().to_dict() == {"train": 24, "val": 8, "test": 8}
    assert (split.label == ABNORMAL).sum() == 4


def test_a_column_tells_the_patient(folder):
    split = split_folder(folder)
    table = pd.DataFrame({"image": split.image, "patient": [f"p{n % 9}" for n in range(len(split))]})
    table.to_csv(folder / "images.csv", index=False)
    by_patient = split_folder(folder, group_column="patient")
    assert (by_patient.groupby("group")["split"].nunique() == 1).all()
    with pytest.raises(SplitError, match=r"images.csv has no column doctor; it has image, patient"):
        split_folder(folder, group_column="doctor")
    table.iloc[1:].to_csv(folder / "images.csv", index=False)
    with pytest.raises(SplitError, match="does not tell the patient of"):
        split_folder(folder, group_column="patient")


def test_normal_images_alone_are_enough(folder, caplog):
    (folder / "abnormal").rename(folder / "other")
    data = Kvasir(folder, modality="wli", num_workers=0)
    data.prepare_data()
    with caplog.at_level(logging.INFO):
        data.setup()
    assert [len(part) for part in (data.train_data, data.val_data, data.test_data)] == [12, 4, 4]
    assert "cannot be measured" in caplog.text


def test_all_images_may_be_for_testing(folder):
    data = Kvasir(folder, modality="wli", num_workers=0, test_only=True)
    data.prepare_data()
    data.setup()
    assert [len(part) for part in (data.train_data, data.val_data, data.test_data)] == [0, 0, 28]
    (folder / "split.csv").unlink()
    Kvasir(folder).prepare_data()
    with pytest.raises(SplitError, match=r"split.csv has training images, but test_only was asked for"):
        data.setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_pattern": "("}, "no regular expression"),
        ({"group_pattern": "case(.)"}, "finds no group in"),
        ({"group_pattern": "x", "group_column": "y"}, "not by both"),
        ({"group_column": "patient"}, r"images.csv is not there"),
        ({"group_pattern": "a"}, "1 groups are too few"),
    ],
)
def test_groups_that_cannot_be_used_are_named(folder, options, message):
    with pytest.raises(SplitError, match=message):
        split_folder(folder, **options)
