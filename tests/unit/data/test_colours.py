"""Telling the modalities apart by colour."""

import pandas as pd
import pytest
import torch

from anomalib_memd import SpectralNBI
from anomalib_memd.data.colours import plain_modality
from anomalib_memd.data.reading import read_image
from anomalib_memd.modality import Modality
from tests.conftest import SHARED, needs_shared


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((0.8, 0.4, 0.3), Modality.WLI), ((0.4, 0.45, 0.3), Modality.NBI), ((0.45, 0.3, 0.25), None)],
)
def test_plain_colours(colour, expected):
    assert plain_modality(torch.tensor(colour).view(1, 3, 1, 1).expand(2, 3, 8, 8)) is expected


def test_darkness_and_highlights_tell_nothing():
    assert plain_modality(torch.zeros(1, 3, 8, 8)) is None
    assert plain_modality(torch.ones(1, 3, 8, 8)) is None


@needs_shared
@pytest.mark.parametrize("dataset", ["kvasir-colon", "gastrovision-colon"])
def test_hardly_a_real_image_is_mistaken(dataset):
    root = SHARED / "data" / dataset
    names = pd.read_csv(root / "split.csv").sample(60, random_state=0).image
    found = {modality: [] for modality in Modality}
    for name in names:
        image = read_image(root / name).as_subclass(torch.Tensor)[None]
        found[Modality.WLI].append(plain_modality(image))
        found[Modality.NBI].append(plain_modality(SpectralNBI()(image)))
    for modality, plain in found.items():
        assert plain.count(modality.other) <= 3 * 2
        assert plain.count(modality) >= 45


@needs_shared
def test_real_narrow_band_images_are_not_taken_for_white_light():
    files = sorted((SHARED / "data" / "nbi-real").rglob("*.jpg"))
    assert len(files) > 50
    plain = [plain_modality(read_image(file).as_subclass(torch.Tensor)[None]) for file in files]
    assert plain.count(Modality.WLI) == 0
    assert plain.count(Modality.NBI) > len(files) / 2
