"""Reading of odd and broken images."""

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_memd.data.reading import ImageReadError, find_partner, read_image

PIXELS = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)


def save(image, path):
    image.save(path)
    return path


def test_rgb_is_read_exactly(tmp_path):
    image = read_image(save(Image.fromarray(PIXELS), tmp_path / "a.png"))
    assert torch.equal((image * 255).round().to(torch.uint8), torch.from_numpy(PIXELS).permute(2, 0, 1))


def test_what_has_a_clear_meaning_is_converted(tmp_path):
    rgb = Image.fromarray(PIXELS)
    expected = read_image(save(rgb, tmp_path / "rgb.png"))
    opaque = rgb.copy()
    opaque.putalpha(255)
    assert torch.equal(read_image(save(opaque, tmp_path / "rgba.png")), expected)
    grey = rgb.convert("L")
    expected_grey = torch.from_numpy(np.asarray(grey)).float().div(255).expand(3, -1, -1)
    torch.testing.assert_close(read_image(save(grey, tmp_path / "grey.png")).as_subclass(torch.Tensor), expected_grey)
    deep = Image.fromarray(np.asarray(grey, dtype=np.uint16) * 257)
    deep_read = read_image(save(deep, tmp_path / "deep.png")).as_subclass(torch.Tensor)
    torch.testing.assert_close(deep_read, expected_grey)


def test_what_has_none_is_refused(tmp_path):
    transparent = Image.fromarray(PIXELS)
    transparent.putalpha(100)
    cases = {
        save(transparent, tmp_path / "clear.png"): "transparent",
        save(Image.fromarray(PIXELS).convert("CMYK"), tmp_path / "print.jpg"): "colour mode CMYK",
        save(Image.fromarray(PIXELS[..., 0].astype(np.float32)), tmp_path / "float.tif"): "colour mode F",
    }
    (tmp_path / "text.jpg").write_text("not an image")
    cases[tmp_path / "text.jpg"] = "not an image"
    whole = save(Image.fromarray(np.tile(PIXELS, (20, 20, 1))), tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    cases[tmp_path / "cut.jpg"] = "truncated"
    cases[tmp_path / "absent.jpg"] = "no such image"
    for path, message in cases.items():
        with pytest.raises(ImageReadError, match=message) as error:
            read_image(path)
        assert str(path) in str(error.value)


def test_partner_may_have_another_suffix(tmp_path):
    (tmp_path / "nbi" / "a").mkdir(parents=True)
    partner = save(Image.fromarray(PIXELS), tmp_path / "nbi" / "a" / "1.png")
    assert find_partner(tmp_path / "wli" / "a" / "1.jpg", tmp_path / "wli", tmp_path / "nbi") == partner
    assert find_partner(tmp_path / "wli" / "a" / "2.jpg", tmp_path / "wli", tmp_path / "nbi") is None
