"""Training in two stages: order, resuming, options, errors."""

import logging
import shutil

import numpy as np
import openvino
import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from lightning.pytorch import Callback
from PIL import Image
from torchvision.transforms.v2 import RandomHorizontalFlip

import anomalib_memd.data.dataset
from anomalib_memd import MEMD, Branch, Kvasir, Modality, PairedImageBatch
from anomalib_memd.components.two_stage import Stage, TwoStageTraining, warmup_and_decay
from anomalib_memd.deployment import AS_EXPORTED
from tests.conftest import small_memd, small_phantom

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Recorder(Callback):
    """Notes which stage each step trained, and its learning rate; may stop a run after an epoch."""

    def __init__(self, stop_after=None):
        self.stages, self.rates, self.stop_after = [], [], stop_after

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.stages.append(pl_module.stage)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_start(self, trainer, _module):
        if self.stop_after is not None and trainer.current_epoch == self.stop_after:
            raise KeyboardInterrupt


def fit(model, datamodule, path, recorder=None, ckpt_path=None):
    engine = Engine(default_root_dir=path, callbacks=[recorder or Recorder()], **QUIET)
    engine.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
    return engine


def build(seed=0, **options):
    torch.manual_seed(seed)
    model = small_memd(**({"evidence": "encoding"} | options))
    torch.manual_seed(seed)
    return model


def test_teacher_comes_first_and_rests_afterwards(phantom_root, tmp_path):
    recorder, model = Recorder(), build()
    states = {}

    class Snapshot(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            states[trainer.current_epoch] = {k: v.clone() for k, v in pl_module.model.state_dict().items()}

    engine = Engine(default_root_dir=tmp_path, callbacks=[recorder, Snapshot()], **QUIET)
    engine.fit(model, datamodule=small_phantom(phantom_root))
    steps = len(recorder.stages) // 2
    assert recorder.stages == [Stage.TEACHER] * steps + [Stage.STUDENTS] * steps
    assert recorder.rates[steps] < recorder.rates[steps + 1]  # It warms up again.
    last = model.model.state_dict()
    solved = ("standardize", "discriminant", "head.image", "distances", "evidence")
    for name, value in states[2].items():
        rests = not name.startswith("students") or any(part in name for part in solved)
        assert torch.equal(value, last[name]) == rests, name
    for name, value in states[1].items():
        if name.startswith("students"):
            assert torch.equal(value, states[0][name]), name
    assert model.trained == {Stage.TEACHER, Stage.STUDENTS}


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_resumed_run_ends_as_an_unbroken_one(phantom_root, tmp_path, stop_after):
    unbroken = build()
    fit(unbroken, small_phantom(phantom_root), tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        _raise_interrupt(build(), small_phantom(phantom_root), tmp_path / "broken", stop_after)
    (checkpoint,) = (tmp_path / "broken").rglob("*.ckpt")
    resumed = build(seed=99)
    fit(resumed, small_phantom(phantom_root), tmp_path / "resumed", ckpt_path=checkpoint)
    for name, value in unbroken.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-6, rtol=1e-5, equal_nan=True, msg=name)


def _raise_interrupt(model, datamodule, path, stop_after):
    try:
        fit(model, datamodule, path, Recorder(stop_after))
    except SystemExit as error:  # Lightning turns the interrupt of a user into an exit.
        raise KeyboardInterrupt from error
    raise KeyboardInterrupt


def test_train_tests_what_it_has_trained_when_it_resumes(phantom_root, tmp_path):
    first = build(teacher_epochs=1, student_epochs=1)
    fit(first, small_phantom(phantom_root), tmp_path / "first")
    checkpoint = next((tmp_path / "first").rglob("*.ckpt"))
    model = build(teacher_epochs=1, student_epochs=3)
    engine = Engine(default_root_dir=tmp_path / "second", **QUIET)
    engine.train(model, datamodule=small_phantom(phantom_root), ckpt_path=checkpoint)
    before = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items() if "students" in name)


def test_given_teacher_is_kept(phantom_root, tmp_path):
    first = build(teacher_epochs=1, student_epochs=1)
    fit(first, small_phantom(phantom_root), tmp_path / "first")
    checkpoint = next((tmp_path / "first").rglob("*.ckpt"))
    recorder, second = Recorder(), build(seed=5, teacher_ckpt=checkpoint)
    fit(second, small_phantom(phantom_root), tmp_path / "second", recorder)
    assert set(recorder.stages) == {Stage.STUDENTS}
    for name, value in first.model.teacher.state_dict().items():
        assert torch.equal(value, second.model.teacher.state_dict()[name]), name
    with pytest.raises(ValueError, match=r"does not fit this model.*same backbone"):
        build(teacher_ckpt=checkpoint, width=24)
    with pytest.raises(ValueError, match="no such checkpoint"):
        build(teacher_ckpt=tmp_path / "none.ckpt")


def test_checkpoint_needs_nothing_else(phantom_root, tmp_path):
    model = build(teacher_epochs=1, student_epochs=1, modality="nbi")
    fit(model, small_phantom(phantom_root), tmp_path)
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    loaded = MEMD.load_from_checkpoint(checkpoint, visualizer=False, modality="nbi")
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected, ours = model.eval()(image), loaded.eval()(image)
    torch.testing.assert_close(ours.pred_score, expected.pred_score)
    torch.testing.assert_close(ours.anomaly_map, expected.anomaly_map)


def test_patience_ends_a_stage_early(phantom_root, tmp_path):
    recorder = Recorder()
    options = {
        "teacher_epochs": 6,
        "student_epochs": 6,
        "patience": 1,
        "validation_interval": 1,
        "learning_rate": 1e-12,
    }
    fit(build(**options), small_phantom(phantom_root), tmp_path, recorder)
    assert recorder.stages == [Stage.TEACHER] * 6 + [Stage.STUDENTS] * 6  # Two epochs of three steps each.


def test_unpaired_second_stage(phantom_root, tmp_path):
    nbi = tmp_path / "frames"
    nbi.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(nbi / f"{number}.png")
    folder = small_phantom(phantom_root).folder
    datamodule = Kvasir(
        folder / "wli", nbi_root=folder / "nbi", unpaired_nbi_root=nbi, train_batch_size=4, num_workers=0
    )
    recorder, model = Recorder(), build()
    fit(model, datamodule, tmp_path / "run", recorder)
    assert recorder.stages.count(Stage.STUDENTS) == 2 * 3
    # The NBI student is standardised by the images it is trained on, the teacher by its pairs.
    student, teacher = model.model.student(Modality.NBI).encoder, model.model.teacher.encoders["nbi"]
    assert not torch.allclose(student.standardize.mean, teacher.standardize.mean)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "noise", "feature_noise": 0.5, "whitening": None, "noise": 0.0, "hidden": 8},
        {"kind": "perlin", "energy": "simam", "kl_direction": "student_target", "residual": True},
        {"kind": "paste", "students": "shared", "global_distance": "huber"},
        {"fusion": "none", "adaptive_temperature": False, "student_noise": 0.5},
        {"freeze_backbone": False, "teacher_epochs": 1, "student_epochs": 1},
        {"cache": False},
        {"mar_kernel_size": 2, "mar_distance": 0, "layers": ("layer1", "layer2", "layer3")},
    ],
)
def test_options_train(phantom_root, tmp_path, options):
    model = build(**options)
    engine = fit(model, small_phantom(phantom_root), tmp_path)
    assert torch.isfinite(engine.trainer.callback_metrics["students_loss"])
    if not options.get("freeze_backbone", True):
        untouched = build(**options).model.embedding.state_dict()
        trained = model.model.embedding.state_dict()
        assert any(not torch.equal(value, trained[name]) for name, value in untouched.items())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "noise", "feature_noise": 0.5},
        {"students": "shared"},
        {"weight": 0.0, "distance_weight": 0.0},
        {"students": "none"},
        {"cache": False},
        {"layers": ("layer1", "layer2", "layer3")},
    ],
)
def test_what_is_solved_for_needs_one_step_a_stage(phantom_root, tmp_path, options):
    """Nothing of it is moved by the steps that the trainer takes."""
    recorder, model, solved = Recorder(), build(evidence="backbone", **options), []

    class Snapshot(Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            solved.append({k: v.clone() for k, v in pl_module.model.state_dict().items()})

    engine = Engine(default_root_dir=tmp_path, callbacks=[recorder, Snapshot()], **QUIET)
    engine.fit(model, datamodule=small_phantom(phantom_root))
    assert recorder.stages == list(Stage)[: 1 if options.get("students") == "none" else 2]
    for name, value in model.model.state_dict().items():
        torch.testing.assert_close(solved[-1][name], value, rtol=0, atol=0, equal_nan=True, msg=name)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    teacher = model.model.teacher
    assert teacher.image_distances[0].bank.shape[0] == 12
    assert teacher.evidence.standardize.std.min() > 0
    if model.features.negatives:
        assert teacher.discriminant.weight.abs().max() > 0


def test_teacher_alone(phantom_root, tmp_path):
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    (metrics,) = engine.train(build(students="none"), datamodule=small_phantom(phantom_root))
    assert "teacher_image_AUROC" in metrics
    assert not any(name.startswith(("wli", "nbi")) for name in metrics)


def test_random_augmentation_trains_without_kept_features(phantom_root, tmp_path):
    datamodule = small_phantom(phantom_root)
    datamodule.train_augmentations = RandomHorizontalFlip()
    model = build()
    fit(model, datamodule, tmp_path / "run")
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_single_image_batches_train(phantom_root, tmp_path):
    model = build(teacher_epochs=1, student_epochs=1)
    fit(model, small_phantom(phantom_root, train_batch_size=1), tmp_path)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_loss_that_turns_nan_stops_with_stage_and_step(phantom_root, tmp_path):
    model = build()
    model.objective.cosine_weight = float("nan")
    with pytest.raises(FloatingPointError, match=r"stage teacher, epoch 1, step 1, .*lower learning_rate"):
        fit(model, small_phantom(phantom_root), tmp_path)


def test_plain_batches_are_refused(phantom_root, tmp_path):
    with pytest.raises(TypeError, match="modality=paired"):
        fit(build(), small_phantom(phantom_root, modality="wli"), tmp_path)
    with pytest.raises(TypeError, match="modality=paired"):
        build().training_step(ImageBatch(image=torch.rand(1, 3, 8, 8)), 0)


def test_untrained_students_predict_nothing():
    with pytest.raises(RuntimeError, match="no trained student"):
        build()(torch.rand(1, 3, 64, 64))


def test_each_detector_is_calibrated_by_itself(phantom_root, tmp_path):
    model = build()
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    (metrics,) = engine.train(model, datamodule=small_phantom(phantom_root))
    thresholds = {branch: float(model.post_processor.branch(branch).image_threshold) for branch in Branch}
    assert len(set(thresholds.values())) == 3
    for branch in ("wli", "nbi", "teacher"):
        for name in ("image_AUROC", "image_AveragePrecision", "image_F1Score", "pixel_AUROC", "pixel_AUPRO"):
            assert 0 <= metrics[f"{branch}_{name}"] <= 1
    assert metrics["modality_gap"] == pytest.approx(abs(metrics["wli_image_AUROC"] - metrics["nbi_image_AUROC"]))


def test_predictions_of_a_pair_are_those_of_the_single_images(phantom_root):
    datamodule = small_phantom(phantom_root)
    datamodule.setup()
    batch = next(iter(datamodule.test_dataloader()))
    for modality, image in ((Modality.WLI, batch.image), (Modality.NBI, batch.nbi_image)):
        model = build(modality=modality)
        model.trained = set(Stage)
        model.eval()
        with torch.no_grad():
            pair = model.test_step(PairedImageBatch(image=batch.image, nbi_image=batch.nbi_image))
            single = model.test_step(ImageBatch(image=image))
        torch.testing.assert_close(pair.view(Branch(modality.value)).pred_score, single.pred_score)


def test_learning_rate_rises_and_falls():
    factors = [warmup_and_decay(step / 100, 0.1) for step in range(101)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert max(factors) == pytest.approx(1)
    assert factors[-1] == pytest.approx(0)


def test_a_backbone_learns_only_beside_networks():
    with pytest.raises(ValueError, match="freeze_backbone=true, or evidence=encoding"):
        build(evidence="backbone", freeze_backbone=False)


def test_stages_need_epochs():
    with pytest.raises(ValueError, match="needs an epoch"):
        TwoStageTraining({Stage.TEACHER: 0, Stage.STUDENTS: 0})
    assert TwoStageTraining({Stage.TEACHER: 2, Stage.STUDENTS: 3}).total_epochs == 5


def test_images_are_read_once_where_features_are_kept(phantom_root, tmp_path, monkeypatch):
    reads = []
    original = anomalib_memd.data.dataset.read_image
    monkeypatch.setattr("anomalib_memd.data.dataset.read_image", lambda path: reads.append(str(path)) or original(path))
    datamodule = small_phantom(phantom_root)
    fit(build(), datamodule, tmp_path)
    trained = [path for path in reads if "train-" in path]
    # Each pair once for itself and once as a donor of texture, and the first for the shape of the features.
    assert len(trained) == 2 * (2 * 12 + 2)
    assert datamodule.train_data[0].image.shape == (3, 64, 64)


def test_normal_images_alone_train_and_set_thresholds(tmp_path, phantom_root, caplog):
    data = small_phantom(phantom_root, train=12)
    data.prepare_data()
    folder = tmp_path / "normal alone"
    shutil.copytree(data.folder, folder)
    table = pd.read_csv(folder / "wli" / "split.csv")
    table[table.label == "normal"].to_csv(folder / "wli" / "split.csv", index=False)
    data = Kvasir(folder / "wli", nbi_root=folder / "nbi", num_workers=0)
    model = small_memd(false_positive_rate=0.25)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    with caplog.at_level(logging.INFO):
        results = engine.train(model, datamodule=data)
    assert "25% of them are called abnormal" in caplog.text
    assert set(results[0]) == {f"{branch}_image_FalsePositiveRate" for branch in ("wli", "nbi", "teacher")}
    for branch in Branch:
        processor = model.post_processor.branch(branch)
        assert processor.image_min < processor._image_threshold < processor.image_max
        assert processor.pixel_min < processor._pixel_threshold < processor.pixel_max
    # The checkpoint has them too.
    loaded = MEMD.load_from_checkpoint(engine.best_model_path, map_location="cpu")
    for branch in Branch:
        expected = model.post_processor.branch(branch)._image_threshold
        assert loaded.post_processor.branch(branch)._image_threshold == expected


def test_a_false_positive_rate_is_a_share():
    with pytest.raises(ValueError, match="above 0 and below 1, got 0"):
        small_memd(false_positive_rate=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "layers", "size"),
    [("convnext_atto", ("stages.1", "stages.2"), 64), ("vit_tiny_patch16_224", ("blocks.3", "blocks.7"), 224)],
)
def test_other_families_of_backbones_train_and_export(tmp_path, phantom_root, backbone, layers, size):
    model = small_memd(backbone=backbone, layers=layers, image_size=(size, size))
    fit(model, small_phantom(phantom_root), tmp_path)
    frames = torch.rand(2, 3, 80, 80)
    with torch.inference_mode():
        expected = model.deployed()(frames).pred_score
    exported = openvino.Core().compile_model(model.deployed().to_openvino(tmp_path), "CPU", AS_EXPORTED)
    np.testing.assert_allclose(exported(frames.numpy())["pred_score"], expected.numpy(), atol=2e-3)
