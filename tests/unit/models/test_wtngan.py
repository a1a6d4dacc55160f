"""Losses, generator and training of WtNGAN."""

import numpy as np
import openvino
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from skimage.metrics import structural_similarity

from anomalib_memd import UnpairedImages, WtNGAN
from anomalib_memd.data.overlay import overlay_mask
from anomalib_memd.models.wtngan.loss import (
    LeastSquaresGANLoss,
    PatchContrastiveLoss,
    StructureConsistencyLoss,
)
from anomalib_memd.models.wtngan.torch_model import Generator, PatchDiscriminator


def small_wtngan(**options):
    return WtNGAN(**({"width": 4, "blocks": 1, "state_size": 2, "discriminator_width": 4, "patches": 16} | options))


@pytest.fixture
def folders(tmp_path):
    """Smooth random textures: reddish ones, and greenish ones with a box."""
    random = np.random.default_rng(0)
    for kind, tint, number in (("wli", (200, 110, 90), 6), ("nbi", (90, 140, 120), 4)):
        (tmp_path / kind).mkdir()
        for i in range(number):
            texture = np.kron(random.uniform(0.6, 1.0, (16, 16, 1)), np.ones((3, 3, 1)))
            texture = texture + random.uniform(0, 0.1, (48, 48, 1))
            pixels = (texture * tint).clip(0, 255).astype(np.uint8)
            if kind == "nbi":
                pixels[:16, :16] = 0
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    return tmp_path / "wli", tmp_path / "nbi"


def test_an_untrained_generator_changes_nothing():
    image = torch.rand(2, 3, 21, 30)
    assert (Generator(4, 1, 2)(image) - image).abs().max() <= 1 / 512


def test_overlays_stay_and_the_range_is_kept():
    generator = Generator(4, 1, 2)
    torch.nn.init.normal_(generator.output.weight, std=1.0)
    image = torch.rand(1, 3, 48, 48) * 0.8 + 0.1
    image[..., :20, :20] = 0
    with torch.no_grad():
        translated = generator(image)
    assert translated.min() >= 0
    assert translated.max() <= 1
    assert (translated - image)[..., 24:, 24:].abs().mean() > 0.01
    assert torch.equal(translated[..., :16, :16], image[..., :16, :16])


def test_boxes_borders_and_writing_are_overlay_but_highlights_are_not():
    image = torch.rand(1, 3, 64, 64) * 0.5 + 0.3
    image[..., :24, :24] = torch.tensor([0.1, 0.6, 0.5])[:, None, None]
    image[..., 40:, :20] = 0
    image[..., 50:52, 5:9] = 1
    image[..., 40:43, 40:43] = 1
    mask = overlay_mask(image)[0, 0]
    assert mask[2:20, 2:20].all()
    assert mask[46:62, 2:14].all()
    assert not mask[:, 30:].any()


def test_structure_is_one_under_changes_of_brightness_and_contrast():
    image = torch.rand(1, 3, 32, 32) * 0.5 + 0.25
    loss = StructureConsistencyLoss()
    assert loss(0.5 * image + 0.2, image).item() == pytest.approx(0, abs=5e-3)
    assert loss(1 - image, image).item() > 1.5


def test_structure_is_the_ssim_of_images_of_equal_mean_and_contrast():
    """Where the other two factors of SSIM are 1, SSIM is the structure term."""
    x = torch.randn(1, 1, 128, 128) * 0.1 + 0.5
    y = (0.8 * (x - 0.5) + 0.6 * torch.randn_like(x) * 0.1) + 0.5
    ours = StructureConsistencyLoss(constant=0.0).structure(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)).mean()
    theirs = structural_similarity(
        x[0, 0].numpy(), y[0, 0].numpy(), data_range=1.0, gaussian_weights=True, use_sample_covariance=False, K1=0, K2=0
    )
    assert ours.item() == pytest.approx(theirs, abs=0.05)


def test_patches_are_contrasted_as_defined():
    queries, keys = (torch.nn.functional.normalize(torch.randn(2, 5, 3), dim=-1) for _ in range(2))
    expected = []
    for image in range(2):
        for patch in range(5):
            similarity = torch.stack([queries[image, patch] @ keys[image, other] for other in range(5)]) / 0.1
            expected.append(similarity.logsumexp(0) - similarity[patch])
    found = PatchContrastiveLoss(0.1)([queries], [keys])
    torch.testing.assert_close(found, torch.stack(expected).mean())


def test_least_squares():
    judged = torch.tensor([0.0, 0.5, 1.0])
    assert LeastSquaresGANLoss()(judged, real=True).item() == pytest.approx((1 + 0.25) / 3)
    assert LeastSquaresGANLoss()(judged, real=False).item() == pytest.approx((0.25 + 1) / 3)


def test_a_patch_has_seventy_pixels():
    discriminator = PatchDiscriminator(4).eval()
    image = torch.rand(1, 3, 200, 200, requires_grad=True)
    # Instance normalisation would let every pixel count.
    for number, layer in enumerate(discriminator.layers):
        if isinstance(layer, torch.nn.InstanceNorm2d):
            discriminator.layers[number] = torch.nn.Identity()
    discriminator(image)[0, 0, 10, 10].backward()
    touched = image.grad[0].abs().sum(0).nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [70, 70]


def test_training_brings_the_colours_over_and_resumes(folders, tmp_path):
    wli, nbi = folders
    data = UnpairedImages(wli, nbi, crop_size=32, batch_size=2, num_workers=0)
    model = small_wtngan(learning_rate=3e-3)

    def distance(network):
        data.setup()
        images, real = (
            torch.stack([getattr(data.train_data[i], name) for i in range(6)]) for name in ("image", "nbi_image")
        )
        with torch.no_grad():
            translated = network(images)
        colours = [
            torch.stack([part[:, c][~overlay_mask(part)[:, 0]].mean() for c in range(3)]) for part in (translated, real)
        ]
        return (colours[0] - colours[1]).abs().mean()

    before = distance(model)
    options = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=30, default_root_dir=tmp_path, enable_checkpointing=False, **options)
    trainer.fit(model, data)
    assert distance(model) < 0.6 * before
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    again = small_wtngan(learning_rate=3e-3)
    longer = Trainer(max_epochs=31, default_root_dir=tmp_path, enable_checkpointing=False, **options)
    longer.fit(again, data, ckpt_path=tmp_path / "first.ckpt", weights_only=False)
    assert longer.current_epoch == 31
    assert distance(again) < 0.6 * before


def test_the_learning_rate_stays_and_falls(folders):
    model = small_wtngan()
    model._trainer = Trainer(max_epochs=200, logger=False, accelerator="cpu")
    assert [model._rate(epoch) for epoch in (0, 100, 150, 200)] == [1, 1, 0.5, 0]


def test_identity_is_an_option(folders):
    model = small_wtngan(identity_weight=1.0)
    options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_progress_bar=False, **options)
    trainer.fit(model, UnpairedImages(*folders, crop_size=32, num_workers=0))
    assert trainer.callback_metrics["identity"] >= 0


def test_the_generator_is_exported(tmp_path):
    model = small_wtngan().eval()
    torch.nn.init.normal_(model.generator.output.weight, std=0.3)
    image = torch.rand(1, 3, 32, 40)
    path = tmp_path / "translator.onnx"
    model.to_onnx(path, image, dynamo=True, external_data=False)
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        expected = model(image).numpy()
    np.testing.assert_allclose(compiled(image.numpy())[0], expected, atol=1e-4)


def test_images_are_held_back_by_name(folders):
    wli, nbi = folders
    data = UnpairedImages(wli, nbi, nbi_held_back=0.25, num_workers=0)
    data.setup()
    assert [path[-5:] for path in data.train_data.nbi_paths] == ["0.png", "1.png", "2.png"]
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        UnpairedImages(wli, nbi, nbi_held_back=1.0).setup()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        UnpairedImages(wli, nbi / "nothing").setup()
