"""The commands that translate a folder and compare translations."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from anomalib_memd import Kvasir, LearnedNBI, SpectralNBI, WtNGAN
from anomalib_memd.cli import main
from anomalib_memd.components.backbones import build_backbone
from anomalib_memd.data.reading import read_image
from anomalib_memd.translation.translate import save_image


@pytest.fixture
def wli(tmp_path):
    folder = tmp_path / "wli"
    random = np.random.default_rng(0)
    for name, size in {"a.png": (20, 30), "deep/b.jpg": (33, 21), "deep/c.png": (16, 16)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(60, 200, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def weights(tmp_path):
    model = WtNGAN(width=4, blocks=1, state_size=2, discriminator_width=4)
    torch.nn.init.normal_(model.generator.output.weight, std=0.3)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "wtngan.ckpt", weights_only=True)
    return tmp_path / "wtngan.ckpt"


def translate(wli, output, *options):
    main(
        [
            "translate",
            "--input",
            str(wli),
            "--output",
            str(output),
            "--accelerator",
            "cpu",
            "--num_workers",
            "0",
            *options,
        ]
    )


def test_names_and_sizes_are_kept(wli, tmp_path):
    translate(wli, tmp_path / "nbi")
    files = sorted(path.relative_to(wli) for path in wli.rglob("*.*"))
    assert sorted(path.relative_to(tmp_path / "nbi") for path in (tmp_path / "nbi").rglob("*.*")) == files
    for name in files:
        source, found = read_image(wli / name), read_image(tmp_path / "nbi" / name)
        tolerance = 1 / 255 if name.suffix == ".png" else 0.1
        assert (found - SpectralNBI()(source.as_subclass(torch.Tensor))).abs().max() <= tolerance


def test_what_is_there_stays_and_what_is_broken_is_named(wli, tmp_path, capsys):
    translate(wli, tmp_path / "nbi")
    (tmp_path / "nbi" / "deep" / "c.png").unlink()
    before = (tmp_path / "nbi" / "a.png").stat().st_mtime_ns
    (wli / "broken.jpg").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"Left out: .*broken\.jpg"):
        translate(wli, tmp_path / "nbi")
    assert (tmp_path / "nbi" / "a.png").stat().st_mtime_ns == before
    assert (tmp_path / "nbi" / "deep" / "c.png").exists()
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == ["1", "2", "1"]
    assert not list((tmp_path / "nbi").rglob("*.part*"))


def test_the_learned_translator_takes_its_place(wli, weights, tmp_path, image_folder):
    translate(wli, tmp_path / "nbi", "--weights", str(weights))
    translator = LearnedNBI(weights)
    source = read_image(wli / "deep" / "c.png").as_subclass(torch.Tensor)
    assert (read_image(tmp_path / "nbi" / "deep" / "c.png") - translator(source)).abs().max() <= 1 / 255
    torch.testing.assert_close(translator(source), translator(source[None])[0])
    data = Kvasir(image_folder, translator=translator, num_workers=0)
    data.setup()
    item = data.train_data[0]
    torch.testing.assert_close(
        item.nbi_image.as_subclass(torch.Tensor), translator(item.image.as_subclass(torch.Tensor))
    )


def test_a_translator_with_options(wli, tmp_path):
    translate(wli, tmp_path / "nbi", "--translator", "anomalib_memd.SpectralNBI", "--translator.curve", "2.0")
    source = read_image(wli / "deep" / "c.png").as_subclass(torch.Tensor)
    expected = SpectralNBI(curve=2.0)(source)
    assert (read_image(tmp_path / "nbi" / "deep" / "c.png") - expected).abs().max() <= 1 / 255


def test_wrong_arguments_are_refused(wli, weights, tmp_path):
    with pytest.raises(SystemExit, match="choose another folder"):
        translate(wli, wli / "nbi")
    with pytest.raises(SystemExit, match="holds no image"):
        translate(tmp_path / "nothing", tmp_path / "nbi")
    with pytest.raises(SystemExit, match="not both"):
        translate(wli, tmp_path / "nbi", "--translator", "anomalib_memd.SpectralNBI", "--weights", str(weights))
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(SystemExit, match=r"broken\.ckpt: no readable checkpoint of WtNGAN"):
        translate(wli, tmp_path / "nbi", "--weights", str(tmp_path / "broken.ckpt"))
    assert not (tmp_path / "nbi").exists()


@pytest.mark.slow
def test_translations_are_compared_on_the_phantom(phantom_root, tmp_path, monkeypatch, capsys):
    """The truth is nearest to the truth, and white light keeps all of white light."""
    monkeypatch.setattr("anomalib_memd.translation.comparison.build_backbone", _random_backbone)
    folder = next(phantom_root.iterdir())
    wli, nbi = folder / "wli", folder / "nbi"
    translate(wli, tmp_path / "spectral", "--split", "test")
    main([
        "compare-translations", "--wli", str(wli), "--nbi", str(nbi), "--truth", str(nbi), "--examples", "3",
        "--translations", f"{{spectral: {tmp_path / 'spectral'}, truth: {nbi}}}", "--output", str(tmp_path / "out"),
    ])  # fmt: skip
    table = pd.read_csv(tmp_path / "out" / "translations.csv").set_index("translation")
    assert table["PSNR to truth"].idxmax() == "truth"
    assert table.loc["truth", "CIEDE2000 to truth"] == 0
    assert table.loc["untouched WLI", ["SSIM", "contrast kept"]].tolist() == pytest.approx([1, 1])
    kid = table["KID"].str.split().str[0].astype(float)
    assert kid.idxmin() == "truth"
    images = pd.read_csv(tmp_path / "out" / "images.csv")
    assert len(images) == 3 * 12
    flat = tmp_path / "flat"
    for path in images.image.unique():
        save_image(Image.new("RGB", (64, 64), (90, 120, 100)), flat / Path(path).relative_to(wli))
    translations = ["--translations", f"{{flat: {flat}}}", "--output", str(tmp_path / "flat-out")]
    main(["compare-translations", "--wli", str(wli), "--nbi", str(nbi), *translations])
    lost = pd.read_csv(tmp_path / "flat-out" / "translations.csv").set_index("translation")["lesions lost"]
    assert lost.to_dict() == {"untouched WLI": 0, "flat": 1}
    assert (tmp_path / "out" / "examples.jpg").stat().st_size > 10_000
    assert "spectral" in capsys.readouterr().out
    (tmp_path / "spectral").rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match="has no partner"):
        main(["compare-translations", "--wli", str(wli), "--nbi", str(nbi), "--translations", f"{{a: {tmp_path}}}"])


def _random_backbone(name, layers):
    del name, layers
    return build_backbone("resnet18", ["layer3"], pre_trained=False)
