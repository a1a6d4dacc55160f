"""The datamodule: layouts, modalities, partners, augmentation, and anomalib's own models on it."""

import shutil

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from anomalib.models import Stfpm
from PIL import Image
from torchvision.transforms.v2 import RandomHorizontalFlip, RandomRotation, Resize

from anomalib_memd import Kvasir, PairedImageBatch, SpectralNBI
from anomalib_memd.data import ImageReadError, SplitError
from tests.conftest import small_memd, small_phantom


def batch_of(datamodule, part="train"):
    datamodule.prepare_data()
    datamodule.setup()
    return next(iter(getattr(datamodule, f"{part}_dataloader")()))


def test_pairs_are_aligned_with_their_translation(image_folder):
    batch = batch_of(Kvasir(image_folder, num_workers=0))
    assert isinstance(batch, PairedImageBatch)
    assert batch.registered.all()
    expected = SpectralNBI()(batch.image.as_subclass(torch.Tensor))
    torch.testing.assert_close(batch.nbi_image.as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("modality", ["wli", "nbi"])
def test_one_modality_is_a_plain_batch(image_folder, modality):
    batch = batch_of(Kvasir(image_folder, modality=modality, num_workers=0))
    assert type(batch) is ImageBatch
    paired = batch_of(Kvasir(image_folder, num_workers=0), "test")
    single = batch_of(Kvasir(image_folder, modality=modality, num_workers=0), "test")
    assert torch.equal(single.image, paired.image if modality == "wli" else paired.nbi_image)
    assert torch.equal(single.gt_label, paired.gt_label)


def test_training_is_normal_and_evaluation_is_mixed(image_folder):
    assert not batch_of(Kvasir(image_folder, num_workers=0)).gt_label.any()
    assert 0 < batch_of(Kvasir(image_folder, num_workers=0), "test").gt_label.float().mean() < 1


def test_masks_and_partners_of_the_phantom(phantom_root):
    batch = batch_of(small_phantom(phantom_root), "test")
    assert batch.gt_mask.shape == batch.image.shape[:1] + batch.image.shape[2:]
    assert torch.equal(batch.gt_mask.flatten(1).any(1), batch.gt_label.bool())
    assert not torch.allclose(batch.nbi_image, batch.image)


def test_augmentation_is_joint(phantom_root):
    """A flipped or turned image has a partner and a mask flipped or turned alike."""
    datamodule = small_phantom(phantom_root)
    datamodule.prepare_data()
    datamodule.setup()
    plain, dataset = list(datamodule.test_data), datamodule.test_data
    for transform in (RandomHorizontalFlip(1.0), RandomRotation((90, 90))):
        dataset.augmentations = transform
        for before, after in zip(plain, dataset, strict=True):
            assert torch.equal(transform(before.image), after.image)
            assert torch.equal(transform(before.nbi_image), after.nbi_image)
            assert torch.equal(transform(before.gt_mask), after.gt_mask)
    dataset.augmentations = RandomHorizontalFlip(0.5)
    for _ in range(8):
        item = dataset[0]
        flips = [not torch.equal(item.image, plain[0].image), not torch.equal(item.nbi_image, plain[0].nbi_image)]
        assert flips[0] == flips[1]


def test_missing_partner_is_named(image_folder, tmp_path_factory):
    nbi = tmp_path_factory.mktemp("nbi")
    shutil.copytree(image_folder / "healthy", nbi / "healthy")
    datamodule = Kvasir(image_folder, nbi_root=nbi)
    with pytest.raises(FileNotFoundError, match=r"No NBI partner for polyp/4.png under .*modality=wli"):
        datamodule.setup()


def test_pair_of_different_sizes_is_named(image_folder, tmp_path_factory):
    nbi = tmp_path_factory.mktemp("nbi")
    for name in ("healthy", "polyp"):
        shutil.copytree(image_folder / name, nbi / name)
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(nbi / "healthy" / "0.png")
    datamodule = Kvasir(image_folder, nbi_root=nbi, num_workers=0)
    datamodule.setup()
    with pytest.raises(ImageReadError, match=r"0.png is of size \(10, 10\)"):
        list(datamodule.train_data)


def test_unpaired_sets_of_different_sizes(image_folder, tmp_path_factory):
    nbi = tmp_path_factory.mktemp("nbi")
    for number in range(7):
        Image.fromarray(np.full((30, 20, 3), number, np.uint8)).save(nbi / f"frame{number}.png")
    datamodule = Kvasir(image_folder, unpaired_nbi_root=nbi, num_workers=0, train_augmentations=Resize((16, 16)))
    datamodule.setup()
    assert len(next(iter(datamodule.train_dataloader())).image) == 4
    datamodule.use_unpaired = True
    batch = next(iter(datamodule.train_dataloader()))
    assert len(batch.image) == 7
    assert not batch.registered.any()
    assert len({path.split("|")[1] for path in batch.image_path}) == 7
    assert len({path.split("|")[0] for path in batch.image_path}) == 4
    assert datamodule.train_datasets()[1].item_paths() == [item.image_path for item in datamodule.train_datasets()[1]]


def test_no_batch_of_a_single_image(image_folder):
    sizes = [len(b.image) for b in _loader(image_folder, 3)]
    assert sizes == [3]
    assert [len(b.image) for b in _loader(image_folder, 4)] == [4]


def _loader(root, batch_size):
    datamodule = Kvasir(root, train_batch_size=batch_size, num_workers=0)
    datamodule.setup()
    return datamodule.train_dataloader()


def test_official_layout_gets_the_split_of_the_paper(tmp_path):
    root = tmp_path / "kvasir"
    for name in ("normal-cecum", "normal-pylorus", "normal-z-line", "esophagitis", "polyps", "ulcerative-colitis"):
        (root / name).mkdir(parents=True)
        for number in range(9):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / name / f"{number}.jpg")
    datamodule = Kvasir(root, split_sizes=(9, 3, 6), num_workers=0)
    datamodule.prepare_data()
    written = (root / "split.csv").read_bytes()
    datamodule.prepare_data()
    assert (root / "split.csv").read_bytes() == written
    datamodule.setup()
    assert [len(d) for d in (datamodule.train_data, datamodule.val_data, datamodule.test_data)] == [9, 6, 12]


def test_folder_without_split_is_refused(tmp_path):
    with pytest.raises(SplitError, match=r"no split\.csv"):
        Kvasir(tmp_path).setup()
    with pytest.raises(SplitError, match="no class 'normal-cecum'"):
        Kvasir(tmp_path).prepare_data()


def test_anomalibs_own_model_trains_on_one_modality(phantom_root, tmp_path, monkeypatch):
    create = timm.create_model
    monkeypatch.setattr("timm.create_model", lambda *a, **options: create(*a, **(options | {"pretrained": False})))
    datamodule = small_phantom(phantom_root, modality="nbi")
    model = Stfpm(backbone="resnet18", layers=["layer1"], visualizer=False)
    engine = Engine(default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", logger=False)
    (metrics,) = engine.train(model, datamodule=datamodule)
    assert 0 <= metrics["image_AUROC"] <= 1
    assert 0 <= metrics["pixel_AUROC"] <= 1


def test_a_set_of_test_images_alone_is_tested_by_thresholds_of_a_checkpoint(phantom_root, tmp_path):
    """External validation: the figures are those of the same images in a whole set."""
    whole = small_phantom(phantom_root)
    model = small_memd()
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    engine = Engine(default_root_dir=tmp_path, **options)
    engine.fit(model, datamodule=whole)
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    (expected,) = engine.test(model, datamodule=whole)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(whole.folder, elsewhere)
    table = pd.read_csv(elsewhere / "wli" / "split.csv")
    table[table.split == "test"].to_csv(elsewhere / "wli" / "split.csv", index=False)
    external = Kvasir(elsewhere / "wli", nbi_root=elsewhere / "nbi", num_workers=0)
    (found,) = Engine(default_root_dir=tmp_path, **options).test(
        small_memd(), datamodule=external, ckpt_path=tmp_path / "model.ckpt"
    )
    assert found == pytest.approx(expected, abs=1e-6)
    with pytest.raises(
        SplitError, match="wli has test images alone: it can be tested, but nothing can be trained on it"
    ):
        # In a folder of its own: anomalib makes 'latest' a folder by a test, and a link by a training.
        Engine(default_root_dir=tmp_path / "training", **options).fit(small_memd(), datamodule=external)
