"""What several tests need."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from PIL import Image

from anomalib_memd import MEMD, Phantom
from anomalib_memd.components.solution import fit_distances
from anomalib_memd.components.statistics import feature_statistics
from anomalib_memd.components.two_stage import Stage
from anomalib_memd.components.weighing import calibrate_evidence
from anomalib_memd.data.tissue import render
from anomalib_memd.inference.video_file import VideoWriter
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models.memd.options import Distillation, Encoder, Head, Negatives, Training

GROUPS = {
    "encoder": Encoder,
    "head": Head,
    "negatives": Negatives,
    "training": Training,
    "distillation": Distillation,
}

SHARED = Path(__file__).resolve().parents[2] / "shared"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real images of ../shared")


# Tests run in one process a core, see pyproject.toml; threads of each would only wait for those of the others.
torch.set_num_threads(1)
# How long an example takes says something about the machine alone. The same examples come with each run, so that
# it passes for everybody or for nobody; `--hypothesis-profile fresh` draws new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("fresh", deadline=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory):
    """Folder with a small phantom, rendered once."""
    root = tmp_path_factory.mktemp("phantom")
    small_phantom(root).prepare_data()
    return root


def small_phantom(root, **options):
    """A phantom of 12 training frames of 64 pixels."""
    sizes = {"image_size": 64, "train": 12, "val": 4, "test": 6, "train_batch_size": 4, "num_workers": 0}
    return Phantom(root, **(sizes | options))


def small_memd(**options):
    """MEMD with a small random backbone, for tests of the mechanics; options of groups by their own names."""
    small = {
        "backbone": "resnet18",
        "backbone_weights": "random",
        "image_size": (64, 64),
        "width": 16,
        "per_image": 2,
        "teacher_epochs": 2,
        "student_epochs": 2,
        "visualizer": False,
    }
    return MEMD(**grouped(**(small | options)))


def grouped(**options):
    """Arguments of MEMD: options that belong to a group, each in its own."""
    arguments = {}
    for name, value in options.items():
        group = next((group for group, kind in GROUPS.items() if name in {f.name for f in fields(kind)}), None)
        if group is None:
            arguments[name] = value
        else:
            arguments.setdefault(group, {})[name] = value
    return arguments


def groups(**options):
    """The groups themselves, of options by their own names, beside what belongs to none."""
    arguments = grouped(**options)
    return {name: GROUPS[name](**x) if name in GROUPS else x for name, x in arguments.items()}


def deployable_memd():
    """A small MEMD with random weights and ranges that counts as trained."""
    torch.manual_seed(0)
    model = small_memd().eval()
    for part in (model.model.teacher, *model.model.students.values()):
        torch.nn.init.normal_(part.discriminant.weight, std=0.5)
        for linear in part.images:
            torch.nn.init.normal_(linear.weight, std=2.0)
    frames = (torch.rand(40, 3, 1, 1) + 0.3 * (torch.rand(40, 3, 48, 48) - 0.5)).clamp(0, 1)
    with torch.inference_mode():
        embedded = model.model.embedding(model.pre_processor.transform(frames))
        # Features of a random network nearly depend on each other; with noise float32 can tell them apart.
        features = dict.fromkeys(Modality, embedded.of(lambda x: x + x.std() * torch.randn_like(x)))
    detectors = [pair for stage in Stage for pair in model.model.detectors(stage)]
    fit_distances(detectors, [features], {m: feature_statistics([x]) for m, x in features.items()})
    calibrate_evidence(detectors, [features])
    for branch in Branch:
        processor = model.post_processor.branch(branch)
        with torch.inference_mode():
            raw = model.model.judge(branch, dict.fromkeys(Modality, embedded), torch.Size((64, 64)))
        detector = model.model.teacher if branch is Branch.TEACHER else model.model.student(Modality(branch))
        for level, values, bias in (
            ("image", raw.pred_score, detector.evidence.bias),
            ("pixel", raw.anomaly_map, detector.discriminant.bias),
        ):
            bias.data += 0.1 - values.mean()  # The mean score becomes that of the threshold.
            getattr(processor, f"_{level}_threshold").fill_(0.1)
            getattr(processor, f"{level}_min").copy_(0.1 - 8 * values.std())
            getattr(processor, f"{level}_max").copy_(0.1 + 8 * values.std())
    model.trained = set(Stage)
    model.normal_classes = ("cecum", "colon")
    return model


def phantom_clip(path, scenes, rate=10, size=192, modality=Modality.WLI):
    """Write a clip of rendered tissue under a light that flickers.

    Args:
        path: The file.
        scenes: Seconds, seed of the tissue, and lesion or None, of one scene after the other.
        rate: Frames a second.
        size: Height and width, in pixels.
        modality: The light.
    """
    writer = VideoWriter(path, rate)
    number = 0
    for seconds, seed, lesion in scenes:
        image = render(size, seed, lesion)[0][modality].permute(1, 2, 0).numpy()
        for step in range(round(seconds * rate)):
            shown = image * (1 - 0.01 * (step % 4))
            writer.write(number / rate, (shown * 255).round().astype(np.uint8))
            number += 1
    writer.close()
    return path


@pytest.fixture
def image_folder(tmp_path):
    """A folder of two classes of 8 images each, with a split.csv."""
    rows = []
    for label, name in (("normal", "healthy"), ("abnormal", "polyp")):
        (tmp_path / name).mkdir()
        for number in range(8):
            pixels = np.random.default_rng(number).integers(40, 220, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
            split = ("train", "train", "train", "train", "val", "val", "test", "test")[number]
            if label == "abnormal" and split == "train":
                continue
            rows.append({"image": f"{name}/{number}.png", "class": name, "label": label, "split": split})
    pd.DataFrame(rows).to_csv(tmp_path / "split.csv", index=False)
    return tmp_path


def start(program, folder, *arguments):
    """Run a console script of this environment in a folder."""
    return subprocess.run(
        [Path(sys.executable).with_name(program), *map(str, arguments)],
        cwd=folder,
        env=command_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def command_environment():
    """Environment of a command that must not reach for a network."""
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
