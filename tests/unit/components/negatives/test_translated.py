"""Negatives of translated narrow band images are translated, too."""

import torch

from anomalib_memd import Modality, SpectralNBI
from anomalib_memd.components.negatives import ImageSynthesis, synthesise


def test_narrow_band_negative_is_the_translation_of_the_white_light_negative() -> None:
    """Inside the lesion it is the translator's, elsewhere not a bit of the normal image changes."""
    torch.manual_seed(0)
    translation = SpectralNBI()
    white = 0.3 + 0.4 * torch.rand(3, 64, 64)
    normal = {Modality.WLI: white, Modality.NBI: translation(white) * 0.99}
    for seed in range(4):
        negative, masks = synthesise(ImageSynthesis("lesion"), normal, normal, True, seed, translation)
        changed = (negative[Modality.WLI] != white).any(0)
        assert changed.any()
        assert not changed.all()
        expected = translation(negative[Modality.WLI])
        torch.testing.assert_close(negative[Modality.NBI][:, changed], expected[:, changed])
        torch.testing.assert_close(
            negative[Modality.NBI][:, ~changed], normal[Modality.NBI][:, ~changed], rtol=0, atol=0
        )
        assert torch.equal(masks[Modality.WLI], masks[Modality.NBI])


def test_lesions_in_white_light_are_those_drawn_without_a_translation() -> None:
    """The draw of the white light image does not depend on what becomes of the other one."""
    torch.manual_seed(0)
    white = 0.3 + 0.4 * torch.rand(3, 64, 64)
    normal = {Modality.WLI: white, Modality.NBI: SpectralNBI()(white)}
    with_translation, _ = synthesise(ImageSynthesis("lesion"), normal, normal, True, 5, SpectralNBI())
    without, _ = synthesise(ImageSynthesis("lesion"), normal, normal, True, 5)
    torch.testing.assert_close(with_translation[Modality.WLI], without[Modality.WLI])
