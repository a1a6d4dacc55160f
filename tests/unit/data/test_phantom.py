"""Rendered mucosa."""

import pytest
import torch
from anomalib.data import get_datamodule

from anomalib_memd.data.tissue import Lesion, render
from anomalib_memd.modality import Modality
from tests.conftest import small_phantom


def test_is_a_function_of_the_seed():
    (first, _), (second, _), (third, _) = render(48, 3), render(48, 3), render(48, 4)
    for modality in Modality:
        assert torch.equal(first[modality], second[modality])
        assert not torch.equal(first[modality], third[modality])


@pytest.mark.parametrize("lesion", list(Lesion))
def test_lesions_change_what_their_mask_covers(lesion):
    for seed in range(5):
        images, mask = render(64, seed, lesion)
        assert 0.005 < mask.float().mean() < 0.4
        for image in images.values():
            assert image.shape == (3, 64, 64)
            inside, outside = image[:, mask].mean(1), image[:, ~mask & (image.amax(0) > 0.1)].mean(1)
            assert (inside - outside).abs().max() > 0.02


def test_is_rendered_once_and_whole(tmp_path, monkeypatch):
    datamodule = small_phantom(tmp_path)
    datamodule.prepare_data()
    assert len(list(tmp_path.rglob("*.part"))) == 0
    monkeypatch.setattr("anomalib_memd.data.phantom.render", None)
    datamodule.prepare_data()
    datamodule.setup()
    assert [len(d) for d in (datamodule.train_data, datamodule.val_data, datamodule.test_data)] == [12, 8, 12]
    assert set(datamodule.test_data.samples.class_name) == {"normal", *(lesion.value for lesion in Lesion)}


def test_interrupted_rendering_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("anomalib_memd.data.phantom.write_split", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        small_phantom(tmp_path, train=1, val=1, test=1).prepare_data()
    assert not list(tmp_path.iterdir())


def test_refuses_empty_phantoms(tmp_path):
    with pytest.raises(ValueError, match="positive size"):
        small_phantom(tmp_path, train=0)


def test_anomalib_builds_it_from_a_configuration(tmp_path):
    made = get_datamodule(
        {"class_path": "anomalib_memd.Phantom", "init_args": {"root": str(tmp_path), "image_size": 48}}
    )
    assert made.image_size == 48
    with pytest.raises(ValueError, match="square"):
        small_phantom(tmp_path, image_size=(48, 64))
