"""Adapting to another device from normal images."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from anomalib.engine import Engine
from PIL import Image

from anomalib_memd import MEMD, Branch
from anomalib_memd.adaptation import _Settle, adapt
from anomalib_memd.cli import main
from anomalib_memd.components.statistics import FeatureStatistics
from anomalib_memd.data.reading import ImageReadError
from anomalib_memd.modality import Modality
from tests.conftest import small_memd, small_phantom


@pytest.fixture(scope="module")
def trained(phantom_root, tmp_path_factory):
    """A checkpoint, and the folders of its training images in both modalities."""
    path = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    datamodule = small_phantom(phantom_root)
    engine = Engine(default_root_dir=path, accelerator="cpu", logger=False, enable_progress_bar=False)
    engine.fit(small_memd(teacher_epochs=1, student_epochs=1), datamodule=datamodule)
    for modality in ("wli", "nbi"):
        for file in (datamodule.folder / modality).rglob("*train-*"):
            (path / modality).mkdir(exist_ok=True)
            shutil.copy(file, path / modality)
    return next(path.rglob("*.ckpt")), path / "wli", path / "nbi"


def load(path):
    return MEMD.load_from_checkpoint(path, visualizer=False)


def test_on_its_own_training_images_nothing_moves_but_thresholds_scales_and_weights(trained, tmp_path):
    ckpt, wli, nbi = trained
    adapt(ckpt, wli, tmp_path / "adapted.ckpt", nbi)
    before, after = load(ckpt), load(tmp_path / "adapted.ckpt")
    for name, expected in before.model.state_dict().items():
        if name.endswith(("evidence.standardize.mean", "evidence.standardize.std")):
            # The scale is that of images left out, of which training has enough to do without.
            continue
        if name.endswith("evidence.weight"):
            # What labelled images of the old device decided holds half.
            assert expected.std() > 0
            expected.copy_((expected + expected.mean()) / 2)
        torch.testing.assert_close(after.model.state_dict()[name], expected, atol=1e-4, rtol=1e-3, msg=name)
    for branch in Branch:
        old, new = before.post_processor.branch(branch), after.post_processor.branch(branch)
        assert new._image_threshold != old._image_threshold
        for level in ("image", "pixel"):
            assert getattr(new, f"{level}_min") < getattr(new, f"_{level}_threshold") < getattr(new, f"{level}_max")


def test_a_device_that_is_nothing_like_the_old_one_gets_its_own_discriminants(trained, tmp_path, capsys):
    ckpt, wli, _ = trained
    original = ckpt.read_bytes()
    main(["adapt", "--ckpt", str(ckpt), "--normal", str(wli), "--output", str(tmp_path / "new" / "adapted.ckpt")])
    printed = capsys.readouterr().out
    assert all(branch.value in printed for branch in Branch)
    before, after = load(ckpt), load(tmp_path / "new" / "adapted.ckpt")
    moved = {k for k, v in before.model.state_dict().items() if not torch.equal(after.model.state_dict()[k], v)}
    # Without the folder of partners they are made from white light, and look nothing like the rendered ones.
    assert {"students.nbi.discriminant.weight", "students.nbi.image.weight", "students.nbi.overview.weight"} <= moved
    assert not any("embedding" in name for name in moved)
    assert ckpt.read_bytes() == original
    with torch.no_grad():
        assert torch.isfinite(after.eval()(torch.rand(2, 3, 64, 64)).pred_score).all()


def test_a_device_like_the_old_one_keeps_the_discriminants(trained, tmp_path, caplog):
    ckpt, wli, nbi = trained
    for file in wli.iterdir():
        Image.eval(Image.open(file), lambda value: round(0.97 * value)).save(tmp_path / file.name)
    with caplog.at_level("INFO"):
        adapt(ckpt, tmp_path, tmp_path / "adapted.ckpt", nbi)
    assert "discriminants are kept" in caplog.text
    before, after = load(ckpt), load(tmp_path / "adapted.ckpt")
    moved = {k for k, v in before.model.state_dict().items() if not torch.equal(after.model.state_dict()[k], v)}
    anew = {"standardize.mean", "image_distances.0.bank", "location_distances.0.mean", "evidence.standardize.mean"}
    assert {f"students.wli.{name}" for name in anew} <= moved
    kept = ("embedding", "discriminant.", ".image.", ".overview.", "wli.standardize.std")
    assert not [name for name in moved if any(part in name for part in kept)]


@torch.no_grad()
def test_means_move_by_the_share_of_what_the_device_changes(trained, monkeypatch):
    model = load(trained[0])
    settle = _Settle(model)
    before = {own: own.standardize.mean.clone() for own, _ in settle.detectors}
    size = (2, model.model.embedding.channels)
    new = {m: FeatureStatistics(*[torch.zeros(size)] * 3, torch.rand(size), torch.ones(size)) for m in Modality}
    monkeypatch.setattr("anomalib_memd.adaptation.fit_distances", lambda *_: None)
    settle(model, SimpleNamespace(rows=torch.arange(10), statistics=new, normals=list))
    for detector, modalities in settle.detectors:
        old, std, found = (
            x.view(2, -1) for x in (before[detector], detector.standardize.std, detector.standardize.mean)
        )
        target = torch.cat([new[m].global_mean for m in modalities], 1)
        for row in range(2):
            shift = max(0.0, float(((target[row] - old[row]) / std[row]).square().mean()) - 0.1)
            expected = old[row] + shift / (1 + shift) * (target[row] - old[row])
            torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_shift_is_counted_in_variances_of_the_old_device_at_each_size(trained):
    model = load(trained[0])
    detector = model.model.teacher
    mean, std = detector.standardize.mean.clone(), detector.standardize.std.clone()
    settle = _Settle(model)
    moved = torch.randn(len(mean))
    half = len(mean) // 2
    given = SimpleNamespace(rows=torch.arange(10), statistics=None)
    detector.standardize.fit(mean + moved * std, std)
    expected = torch.stack([part.square().mean() - 0.1 for part in moved.split(half)])
    torch.testing.assert_close(settle._shifts(detector, given), expected, atol=1e-3, rtol=1e-3)


def test_what_is_of_no_use_is_refused_and_nothing_written(trained, tmp_path):
    ckpt, wli, _ = trained
    output = tmp_path / "adapted.ckpt"
    few = tmp_path / "few"
    few.mkdir()
    for file in sorted(wli.iterdir())[:3]:
        shutil.copy(file, few)
    with pytest.raises(ValueError, match="above 0 and below 1, got 1"):
        adapt(ckpt, wli, output, false_positive_rate=1.0)
    with pytest.raises(ValueError, match="holds 3 images; at least 8"):
        adapt(ckpt, few, output)
    for number in range(5):
        (few / f"broken{number}.png").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"broken\d\.png"):
        adapt(ckpt, few, output)
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"broken\.ckpt: no readable checkpoint"):
        adapt(broken, wli, output)
    with pytest.raises(SystemExit, match="no readable checkpoint"):
        main(["adapt", "--ckpt", str(broken), "--normal", str(wli), "--output", str(output)])
    assert not output.exists()


@pytest.mark.slow
def test_learned_encodings_cannot_be_fitted_again(phantom_root, trained, tmp_path):
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    model = small_memd(teacher_epochs=1, student_epochs=1, evidence="encoding")
    engine.fit(model, datamodule=small_phantom(phantom_root))
    with pytest.raises(ValueError, match="nothing in it to fit again"):
        adapt(next(tmp_path.rglob("*.ckpt")), trained[1], tmp_path / "adapted.ckpt")
