import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from anomalib_memd.benchmark.leakage import check_dataset, near_duplicates, separation, trivial_cues


def test_near_duplicates_are_found_across_splits_only():
    images = torch.rand(5, 64)
    images[1] = images[0] + 0.05 * torch.rand(64)
    images[3] = images[2]
    split = pd.DataFrame({"image": list("abcde"), "split": ["train", "test", "train", "train", "val"]})
    found = near_duplicates(images, split, 0.95)
    assert found[["image", "other"]].to_numpy().tolist() == [["a", "b"]]


def test_what_all_images_share_makes_none_alike():
    corner = torch.zeros(64)
    corner[:32] = 5.0
    split = pd.DataFrame({"image": list("abcd"), "split": ["train", "train", "test", "test"]})
    assert near_duplicates(torch.rand(4, 64) - corner, split, 0.95).empty


def test_cues_measure_what_they_say():
    image = torch.full((3, 40, 40), 0.5)
    image[0] = 0.7
    image[:, :20] = 0
    cues = trivial_cues(image)
    assert cues["black border"] == pytest.approx(0.5)
    assert (cues["mean red"], cues["mean blue"]) == (pytest.approx(0.7), pytest.approx(0.5))
    image[:, 20:] = torch.tensor([0.0, 0.9, 0.0])[:, None, None]
    assert trivial_cues(image)["painted overlay"] == pytest.approx(0.5)
    noise = torch.rand(3, 40, 40)
    assert trivial_cues(noise)["sharpness"] > trivial_cues(torch.full((3, 40, 40), 0.5))["sharpness"]


def test_separation_does_not_depend_on_the_sign():
    cues = pd.DataFrame({"up": np.arange(20.0), "down": -np.arange(20.0), "noise": np.tile([0.0, 1.0], 10)})
    table = separation(cues, pd.Series([False] * 10 + [True] * 10)).set_index("cue").auroc
    assert table["up"] == table["down"] == 1
    assert table["noise"] == 0.5


def test_a_border_that_gives_the_class_away_is_reported(tmp_path):
    rows = []
    for number in range(24):
        label = "abnormal" if number % 2 else "normal"
        if label == "abnormal" or number < 16:
            pixels = np.random.default_rng(number).integers(60, 200, (32, 32, 3), dtype=np.uint8)
            pixels[: 12 if label == "abnormal" else 2] = 0
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
            part = "test" if number >= 6 else ("val" if label == "abnormal" or number == 0 else "train")
            rows.append({"image": f"{label}/{number}.png", "class": label, "label": label, "split": part})
    pd.DataFrame(rows).to_csv(tmp_path / "split.csv", index=False)
    duplicates, cues = check_dataset(tmp_path)
    assert duplicates.empty
    assert cues.set_index("cue").auroc["black border"] == 1


def test_a_folder_without_split_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} has no split.csv"):
        check_dataset(tmp_path)
