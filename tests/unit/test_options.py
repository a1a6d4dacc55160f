"""Options in groups, and checkpoints that know theirs."""

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest
import torch
import yaml
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

from anomalib_memd import MEMD, PooledFeatures
from anomalib_memd.cli import main
from anomalib_memd.components.backbones import BackboneError, WeightsNotFetchedError
from anomalib_memd.components.checkpoints import VERSION_KEY, differing, flat
from anomalib_memd.components.options import group, plain
from anomalib_memd.models.memd.options import Distillation, Encoder, Fusion, Negatives
from tests.conftest import deployable_memd, small_memd, small_phantom


def saved(model, path):
    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=path.parent)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path, weights_only=True)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return saved(deployable_memd(), tmp_path_factory.mktemp("checkpoint") / "model.ckpt")


def test_a_user_of_anomalib_sees_few_options():
    assert len(inspect.signature(MEMD.__init__).parameters) - 1 <= 14


def test_choices_are_taken_by_name_and_groups_do_not_change():
    assert Encoder(fusion="mar").fusion is Fusion.MAR
    assert Distillation(temperature_bounds=[0.5, 3.0]).temperature_bounds == (0.5, 3.0)
    with pytest.raises(ValueError, match="no_such"):
        Encoder(fusion="no_such")
    with pytest.raises(FrozenInstanceError):
        Encoder().width = 3


def test_unknown_options_and_negatives_are_named():
    with pytest.raises(ValueError, match=r"Encoder has no option widht; it has width"):
        group(Encoder, {"widht": 3})
    with pytest.raises(ValueError, match=r"one of mixed, lesion.*kind=stains"):
        Negatives(kind="stains")
    with pytest.raises(ValueError, match="at least 1"):
        Negatives(per_image=0)


@pytest.mark.parametrize("kind", [Encoder, Distillation, Negatives])
def test_a_group_survives_as_plain_data(kind):
    assert group(kind, plain(kind())) == kind()
    assert set(plain(kind())) == {field.name for field in fields(kind)}


def test_flat_names_tell_what_differs():
    given, stored = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "d": 3, "e": 4}
    assert flat(given) == {"a.b": 1, "a.c": 2, "d": 3}
    assert differing(given, stored) == {"a.c": 2}


def test_options_on_the_command_line_of_anomalib(capsys):
    from anomalib.cli import AnomalibCLI  # noqa: PLC0415  slow to import

    line = "train --model anomalib_memd.MEMD --model.backbone resnet18 --model.backbone_weights random"
    line += " --model.distillation.temperature 7 --model.encoder.fusion mar --data anomalib_memd.Phantom"
    model = AnomalibCLI(args=line.split(), run=False).model
    assert model.options.distillation.temperature == 7
    assert model.options.distillation.weight == Distillation().weight
    assert model.options.encoder.fusion is Fusion.MAR


def test_a_checkpoint_brings_its_backbone_and_options(checkpoint, tmp_path, phantom_root):
    """A model of the defaults becomes the one of the checkpoint, and resizes images as that does."""
    expected = MEMD.load_from_checkpoint(checkpoint)
    model = MEMD(backbone_weights="random", visualizer=False)
    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path, accelerator="cpu")
    datamodule = small_phantom(phantom_root)
    (metrics,) = trainer.test(model, datamodule=datamodule, ckpt_path=checkpoint)
    assert model.hparams.backbone == "resnet18"
    assert model.options.encoder.width == model.hparams["encoder"]["width"] == 16
    assert tuple(model.input_size) == (64, 64)
    assert datamodule.test_data.augmentations.size == [64, 64]
    state = model.state_dict()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(state[name], value, equal_nan=True, msg=name)
    again = Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path, accelerator="cpu")
    (wanted,) = again.test(expected, datamodule=small_phantom(phantom_root))
    assert metrics == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbone": "resnet34"}, r"backbone=resnet34, but the checkpoint has resnet18"),
        ({"encoder": Encoder(width=24)}, r"encoder\.width=24, but the checkpoint has 16"),
        ({"image_size": (96, 64)}, r"image_size=\[96, 64\], but the checkpoint has \[64, 64\]"),
    ],
)
def test_what_contradicts_a_checkpoint_is_named_with_both_values(checkpoint, tmp_path, phantom_root, options, said):
    model = MEMD(**({"backbone": "resnet18", "backbone_weights": "random", "visualizer": False} | options))
    with pytest.raises(ValueError, match=said):  # As anomalib's export does it.
        type(model).load_from_checkpoint(checkpoint)
    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path, accelerator="cpu")
    with pytest.raises(ValueError, match=said):
        trainer.test(model, datamodule=small_phantom(phantom_root), ckpt_path=checkpoint)


def test_a_checkpoint_of_an_older_version_says_what_reads_it(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    del content[VERSION_KEY]
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match=r"old\.ckpt.*written by anomalib-memd 0\.1"):
        MEMD.load_from_checkpoint(tmp_path / "old.ckpt")


@pytest.mark.parametrize(
    ("version", "missing"),
    [
        ("0.12.0", ["overview", "overview_shrinkage", "relative_map", "unit_statistics"]),
        ("0.13.0", ["overview_shrinkage", "relative_map", "unit_statistics"]),
        ("0.14.0", ["unit_statistics"]),
    ],
)
def test_a_checkpoint_from_before_there_was_an_option_still_judges(tmp_path, version, missing):
    before = {"overview": False, "overview_shrinkage": None, "relative_map": False, "unit_statistics": False}
    old = small_memd(**{option: before[option] for option in missing}).eval()
    student = old.model.student(old.modality)
    for linear in (*student.images, *student.locations):
        torch.nn.init.normal_(linear.weight)
    student.image_distances[0].fit(torch.randn(5, student.image_distances[0].bank.shape[1]))
    content = torch.load(saved(old, tmp_path / "old.ckpt"), weights_only=True)
    for option in missing:
        del content["hyper_parameters"]["head"][option]
    torch.save(content | {VERSION_KEY: version}, tmp_path / "old.ckpt")
    loaded = MEMD.load_from_checkpoint(tmp_path / "old.ckpt").eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = loaded.model(images), old.model(images)
    assert torch.equal(ours.pred_score, theirs.pred_score)
    assert torch.equal(ours.anomaly_map, theirs.anomaly_map)


def test_weights_that_cannot_be_fetched_are_missed_unless_a_checkpoint_brings_them(
    checkpoint, tmp_path, phantom_root, monkeypatch
):
    from anomalib_memd.components import backbones  # noqa: PLC0415

    build = backbones.build_backbone

    def offline(name, layers, weights=None, **options):
        if weights is None:
            msg = "no network; give backbone_weights=FILE"
            raise WeightsNotFetchedError(msg)
        return build(name, layers, weights=weights, **options)

    monkeypatch.setattr(backbones, "build_backbone", offline)
    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path, accelerator="cpu")
    model = MEMD(visualizer=False)
    assert trainer.test(model, datamodule=small_phantom(phantom_root), ckpt_path=checkpoint)
    with pytest.raises(BackboneError, match="backbone_weights=FILE"):
        trainer.test(MEMD(visualizer=False), datamodule=small_phantom(phantom_root))


def test_loggers_take_the_options(tmp_path, phantom_root):
    """Lightning refuses what it cannot look into."""
    model = small_memd(teacher_epochs=1, student_epochs=1)
    trainer = Trainer(logger=CSVLogger(tmp_path), max_epochs=2, enable_checkpointing=False, accelerator="cpu")
    trainer.fit(model, datamodule=small_phantom(phantom_root))
    logged = yaml.safe_load((tmp_path / "lightning_logs/version_0/hparams.yaml").read_text())
    assert logged["encoder"]["width"] == 16


def test_models_can_be_copied_and_pickled():
    model = small_memd(modality="nbi")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301  our own
        assert isinstance(other, MEMD)
        assert type(other).given == type(model).given
        for name, value in model.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, equal_nan=True)


def test_a_model_of_one_modality_has_the_evaluation_of_this_package():
    model = PooledFeatures("resnet18", layers=["layer1"], pre_trained=False)
    names = {type(callback).__name__ for callback in model.configure_callbacks()}
    assert {"SingleEvaluator", "PostProcessor", "MultimodalVisualizer", "PredictionTable"} <= names


def test_configurations_are_written_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["configs"])
    assert "configs/demo.yaml" in capsys.readouterr().out
    main(["configs"])  # What has not changed may be written again.
    (tmp_path / "configs/demo.yaml").write_text("mine")
    with pytest.raises(SystemExit, match=r"demo\.yaml is there and differs"):
        main(["configs"])
    assert (tmp_path / "configs/demo.yaml").read_text() == "mine"
    main(["configs", "--overwrite"])
    assert "Phantom" in (tmp_path / "configs/demo.yaml").read_text()
