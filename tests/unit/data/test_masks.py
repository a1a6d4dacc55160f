"""Masks as people have them."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomalib_memd import Kvasir
from anomalib_memd.data import masks
from anomalib_memd.data.masks import read_mask
from anomalib_memd.data.reading import ImageReadError, read_image

LESION = np.zeros((6, 8), np.uint8)
LESION[1:3, 2:7] = 1


def painted(normal, abnormal):
    """The lesion in two colours."""
    return np.where(LESION[..., None] > 0, np.uint8(abnormal), np.uint8(normal))


def palette(normal, abnormal):
    image = Image.fromarray(LESION).convert("P")
    image.putpalette([*normal, *abnormal] + [7] * (254 * 3))
    return image


def with_alpha(colour):
    image = Image.new("RGBA", (8, 6), colour)
    image.putalpha(Image.fromarray(255 * LESION))
    return image


def of_voc():
    """A palette with a transparent colour, as editors save it."""
    image = palette((0, 0, 0), (128, 0, 0))
    image.info["transparency"] = 0
    return image


TWO_VALUES = {
    "0 and 1": Image.fromarray(LESION),
    "0 and 255": Image.fromarray(255 * LESION),
    "1 and 2": Image.fromarray(LESION + 1),
    "one bit": Image.fromarray(255 * LESION).convert("1"),
    "16 bits": Image.fromarray(LESION.astype(np.uint16) * 3),
    "32 bits": Image.fromarray(LESION.astype(np.int32) * 70_000),
    "red on black": Image.fromarray(painted((0, 0, 0), (255, 0, 0))),
    "dark blue on black": Image.fromarray(painted((0, 0, 0), (0, 0, 3))),
    "yellow on violet": Image.fromarray(painted((80, 0, 90), (250, 240, 0))),
    "grey in colours": Image.fromarray(painted((0, 0, 0), (1, 1, 1))),
    "palette": palette((0, 0, 0), (128, 0, 0)),
    "palette with a transparent colour": of_voc(),
    "palette, the bright colour first": Image.fromarray(1 - LESION).convert("P"),
    "alpha on white": with_alpha((255, 255, 255, 0)),
    "alpha on black": with_alpha((0, 0, 0, 0)),
    "red and opaque": Image.fromarray(np.dstack([painted((0, 0, 0), (200, 0, 0)), 255 * LESION])),
    "red, all opaque": Image.fromarray(np.dstack([painted((0, 0, 0), (200, 0, 0)), np.full_like(LESION, 255)])),
}
TWO_VALUES["palette, the bright colour first"].putpalette([255, 255, 255, 0, 0, 0] + [7] * (254 * 3))


@pytest.mark.parametrize("name", TWO_VALUES)
def test_two_values_mean_normal_and_abnormal_whatever_they_are(name, tmp_path):
    suffix = "tif" if name == "32 bits" else "png"
    TWO_VALUES[name].save(tmp_path / f"mask.{suffix}")
    assert torch.equal(read_mask(tmp_path / f"mask.{suffix}"), torch.from_numpy(LESION))


@given(st.integers(0, 255), st.integers(0, 255))
def test_the_darker_of_two_grey_values_is_normal(first, second):
    if first == second:
        return
    low, high = sorted((first, second))
    values = np.where(LESION > 0, high, low).astype(np.float64)
    assert np.array_equal(masks._of_brightness(values), LESION > 0)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (1, 1), (255, 1)])
def test_one_value_is_all_or_nothing(value, expected, tmp_path):
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(tmp_path / "mask.png")
    assert torch.equal(read_mask(tmp_path / "mask.png"), torch.full((4, 5), expected, dtype=torch.uint8))


def test_more_values_are_cut_at_half_of_their_range_and_that_is_told_once(tmp_path, caplog):
    large = np.kron(LESION, np.ones((13, 13), np.uint8))
    Image.fromarray(255 * large).save(tmp_path / "grey.jpg", quality=60)
    Image.fromarray(np.dstack([200 * large, 0 * large, 0 * large])).save(tmp_path / "red.jpg", quality=90)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "grey.jpg")))) > 2
    masks._tell_of_cut.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("grey", "red", "grey"):
            assert (read_mask(tmp_path / f"{name}.jpg") != torch.from_numpy(large)).float().mean() < 0.02
    assert [record.message for record in caplog.records].count(
        "Masks have more than two values: those above half of their range count as abnormal."
    ) == 1


def test_colours_that_are_equally_bright_are_an_error_that_names_the_file(tmp_path):
    Image.fromarray(painted((255, 0, 0), (0, 0, 255))).save(tmp_path / "mask.png")
    with pytest.raises(ImageReadError, match=r"mask\.png: its two colours .* equally bright; make normal pixels black"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_and_masks_are_turned_as_exif_says(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(255 * LESION).save(tmp_path / "mask.png", exif=exif)
    Image.fromarray(painted((0, 0, 0), (255, 255, 255))).save(tmp_path / "image.png", exif=exif)
    upright = {
        1: LESION, 2: LESION[:, ::-1], 3: LESION[::-1, ::-1], 4: LESION[::-1], 5: LESION.T, 6: LESION[::-1].T,
        7: LESION[::-1, ::-1].T, 8: LESION[:, ::-1].T,
    }[orientation]  # fmt: skip
    assert np.array_equal(read_mask(tmp_path / "mask.png").numpy(), upright)
    assert np.array_equal(read_image(tmp_path / "image.png")[0].numpy(), upright.astype(np.float32))


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [("polyp", 0, "is abnormal, but its mask is empty"), ("normal", 1, "is normal, but its mask has an abnormal part")],
)
def test_masks_that_contradict_their_label_are_errors(image_folder, label, value, said):
    table = pd.read_csv(image_folder / "split.csv")
    (image_folder / "masks").mkdir()
    for row in table.itertuples():
        own = 255 * (row.label != "normal")
        Image.fromarray(np.full((24, 32), own, np.uint8)).save(image_folder / "masks" / row.image.replace("/", "-"))
    table["mask"] = ["masks/" + name.replace("/", "-") for name in table.image]
    table.to_csv(image_folder / "split.csv", index=False)
    data = Kvasir(image_folder, modality="wli")
    data.setup()
    assert all(item.gt_mask.any() == bool(item.gt_label) for item in data.test_data)
    wrong = next(n for n, item in enumerate(data.test_data) if bool(item.gt_label) == (label != "normal"))
    path = data.test_data.samples.mask_path[wrong]
    Image.fromarray(np.full((24, 32), 255 * value, np.uint8)).save(path)
    with pytest.raises(ImageReadError, match=said) as error:
        _ = data.test_data[wrong]
    assert path in str(error.value)
