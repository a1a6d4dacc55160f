"""Datamodules with labelled abnormal images to learn from."""

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib import TaskType
from PIL import Image

from anomalib_memd import FewShot, LeaveOneOrganOut, Segmentation
from anomalib_memd.data import CaptionedImageBatch, PairedImageBatch, SplitError
from anomalib_memd.data.labelled import Labelled

SIZES = {"train": (10, 0), "val": (6, 6), "test": (5, 5)}


def folder(root, sizes=SIZES, masks=True, organ=""):
    """A data set of so many normal and abnormal images in each split."""
    rows = []
    root.mkdir(parents=True)
    for split, counts in sizes.items():
        for label, count in zip(("normal", "abnormal"), counts, strict=True):
            for number in range(count):
                name = f"{label}/{split}-{number}.png"
                seed = number + 100 * list(sizes).index(split) + 1000 * (label == "normal")
                pixels = np.random.default_rng(seed).integers(40, 220, (24, 32, 3), dtype=np.uint8)
                (root / label).mkdir(exist_ok=True)
                Image.fromarray(pixels).save(root / name)
                mask = ""
                if masks and label == "abnormal":
                    mask = f"masks/{split}-{number}.png"
                    (root / "masks").mkdir(exist_ok=True)
                    Image.fromarray(np.eye(24, 32, dtype=np.uint8) * 255).save(root / mask)
                rows.append({"image": name, "class": label, "label": label, "split": split, "mask": mask})
    table = pd.DataFrame(rows)
    if organ:
        table["organ"] = organ
    table.to_csv(root / "split.csv", index=False)
    return root


def names(dataset):
    return set(dataset.samples.image_path)


def test_shots_are_drawn_from_training_and_validation_images_and_never_twice(tmp_path):
    root = folder(tmp_path / "colon")
    data = FewShot(root=root, shots=3, shots_seed=0, modality="wli")
    data.setup()
    labels = data.train_data.samples.label.tolist()
    assert sorted(labels) == ["abnormal"] * 3 + ["normal"] * 3
    drawn = names(data.train_data)
    assert all("train-" in name for name in drawn if "abnormal" not in name)
    assert all("val-" in name for name in drawn if "abnormal" in name)
    assert not drawn & (names(data.val_data) | names(data.test_data))
    assert len(data.val_data) == 12 - 3
    assert len(data.test_data) == 10


def test_the_seed_decides_about_the_shots(tmp_path):
    root = folder(tmp_path / "colon")
    draws = []
    for seed in (0, 0, 1, None, None):
        torch.manual_seed(7)
        data = FewShot(root=root, shots=3, shots_seed=seed, modality="wli")
        data.setup()
        draws.append(names(data.train_data))
    assert draws[0] == draws[1] != draws[2]
    assert draws[3] == draws[4]


def test_shots_are_pairs_where_pairs_are_asked_for(tmp_path):
    data = FewShot(root=folder(tmp_path / "colon"), shots=2, shots_seed=0, num_workers=0)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, PairedImageBatch)
    assert batch.gt_mask.flatten(1).any(1).tolist() == batch.gt_label.bool().tolist()


def test_labelled_training_images_are_drawn_where_the_split_has_some(tmp_path):
    root = folder(tmp_path / "colon", {"train": (6, 4), "val": (3, 3), "test": (2, 2)})
    data = FewShot(root=root, shots=4, shots_seed=0, modality="wli")
    data.setup()
    assert all("train-" in name for name in names(data.train_data))
    assert len(data.val_data) == 6


@pytest.mark.parametrize(("shots", "what"), [(6, "no abnormal validation image"), (7, "6 abnormal images")])
def test_too_many_shots_are_an_error(tmp_path, shots, what):
    data = FewShot(root=folder(tmp_path / "colon"), shots=shots, shots_seed=0, modality="wli")
    with pytest.raises(SplitError, match=what):
        data.setup()


def test_no_shot_is_an_error():
    with pytest.raises(ValueError, match="shots=0"):
        FewShot(shots=0)


def test_images_without_masks_are_learned_from_by_their_label(tmp_path):
    data = FewShot(root=folder(tmp_path / "colon", masks=False), shots=2, shots_seed=0, modality="wli")
    data.setup()
    assert data.train_data.task is TaskType.CLASSIFICATION
    assert data.train_data[0].gt_mask is None


def test_what_was_trained_on_is_written_where_the_run_is(tmp_path):
    class Trainer:
        default_root_dir = tmp_path

    data = FewShot(root=folder(tmp_path / "colon"), shots=2, shots_seed=0, modality="wli")
    data.trainer = Trainer()
    data.setup()
    table = pd.read_csv(tmp_path / "training.csv")
    assert {str(tmp_path / "colon" / name) for name in table.image} == names(data.train_data)


def test_of_the_target_nothing_is_seen_but_its_test(tmp_path):
    roots = [folder(tmp_path / "colon"), folder(tmp_path / "stomach"), folder(tmp_path / "oesophagus", masks=False)]
    data = LeaveOneOrganOut(roots=roots, root=roots[0], draw_seed=0, modality="wli")
    data.setup()
    seen = names(data.train_data) | names(data.val_data)
    assert not any("/colon/" in name or "/test-" in name for name in seen)
    assert names(data.test_data) == {
        str(roots[0] / row) for row in pd.read_csv(roots[0] / "split.csv").query("split == 'test'").image
    }
    # Of 6 abnormal images of each, 5 are trained on and 1 is validated on, with as many normal ones.
    assert data.train_data.samples.label.value_counts().to_dict() == {"normal": 10, "abnormal": 10}
    assert data.val_data.samples.label.value_counts().to_dict() == {"normal": 2, "abnormal": 2}
    assert len(seen) == 24


def test_masks_are_used_where_there_are_some(tmp_path):
    roots = [folder(tmp_path / "colon"), folder(tmp_path / "stomach"), folder(tmp_path / "oesophagus", masks=False)]
    data = LeaveOneOrganOut(roots=roots, root=roots[0], draw_seed=0, modality="wli")
    data.setup()
    for item in data.train_data:
        assert bool(item.gt_mask.any()) == ("stomach/abnormal" in item.image_path)


def test_the_target_alone_is_an_error(tmp_path):
    root = folder(tmp_path / "colon")
    with pytest.raises(SplitError, match="no other data set"):
        LeaveOneOrganOut(roots=[root], root=root).setup()


def test_segmentation_moves_a_share_of_the_abnormal_validation_images(tmp_path):
    data = Segmentation(root=folder(tmp_path / "colon"), abnormal_share=0.5, normal_ratio=2.0)
    data.setup()
    assert data.train_data.samples.label.value_counts().to_dict() == {"normal": 6, "abnormal": 3}
    assert data.val_data.samples.label.value_counts().to_dict() == {"normal": 6, "abnormal": 3}
    assert not names(data.train_data) & names(data.val_data)


def test_segmentation_keeps_a_split_that_has_abnormal_training_images(tmp_path):
    root = folder(tmp_path / "skin", {"train": (0, 6), "val": (0, 3), "test": (0, 2)})
    data = Segmentation(root=root)
    data.setup()
    assert [len(x) for x in (data.train_data, data.val_data, data.test_data)] == [6, 3, 2]


def test_every_image_has_its_text(tmp_path):
    root = folder(tmp_path / "colon", organ="colon")
    data = Segmentation(
        root=root, text_sections=("before", "record"), metadata={"organ": "stomach", "colour": "red"}, num_workers=0
    )
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, CaptionedImageBatch)
    for item in batch:
        finding = "abnormal" if item.gt_label else "normal"
        # The table counts for more than what is said of all images.
        assert item.text == f"An image of the colon. The finding is {finding}. Its colour is red."


def test_segmentation_without_masks_is_an_error_that_names_an_image(tmp_path):
    with pytest.raises(SplitError, match=r"val-0\.png has no mask"):
        Segmentation(root=folder(tmp_path / "colon", masks=False)).setup()


@pytest.mark.parametrize("options", [{"modality": "paired"}, {"abnormal_share": 1.0}, {"normal_ratio": -1}])
def test_options_of_segmentation_out_of_range_are_errors(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Segmentation(**options)


def test_a_folder_without_a_split_is_an_error(tmp_path):
    with pytest.raises(SplitError, match=str(tmp_path)):
        FewShot(root=tmp_path).setup()


def test_what_is_drawn_is_up_to_each():
    with pytest.raises(NotImplementedError):
        Labelled(root="x")._draw(pd.DataFrame())
