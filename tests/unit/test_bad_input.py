"""Every kind of file and of option that cannot be used: the error names it, says what to do, and nothing is written.

Command lines have a table of their own in tests/unit/cli/test_bad_input.py.
"""

import contextlib
import io
import json
import pickle
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomalib_memd import MEMD, Modality
from anomalib_memd.benchmark.config import load_config
from anomalib_memd.data.dataset import EndoscopyDataset
from anomalib_memd.data.folder_split import split_folder
from anomalib_memd.data.masks import read_mask
from anomalib_memd.data.reading import read_array
from anomalib_memd.data.split import read_split
from anomalib_memd.deployment.metadata import KEY, Metadata, read_metadata, write_metadata
from anomalib_memd.inference.judge import load_judge
from anomalib_memd.inference.score_table import ScoreTable
from anomalib_memd.inference.video_file import VideoWriter, read_video
from anomalib_memd.models.memd.options import Distillation, Encoder, Head, Negatives, Training
from anomalib_memd.translation.learned import LearnedNBI
from tests.conftest import deployable_memd, small_memd

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


class Marker:
    """Something that runs code when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def check(folder, use, path, fragment):
    """Using a file is refused by an error that names it, and leaves everything as it was."""
    before = contents(folder)
    with pytest.raises((ValueError, OSError, RuntimeError)) as caught:
        use(path)
    message = str(caught.value)
    assert str(path) in message, message
    assert fragment in message, message
    assert "\n" not in message.strip() or len(message) < 2000
    assert contents(folder) == before


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def encoded(form, image=PIXELS, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


# Images -------------------------------------------------------------------------------------------------------------

FORMATS = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".bmp": "bmp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
}
NO_IMAGES = {
    "empty": b"",
    "text": b"not an image",
    "page": b"<!DOCTYPE html><html><body>403 Forbidden</body></html>",
    "json": b'{"error": "not found"}',
    "noise": np.random.default_rng(1).bytes(4000),
    "pickle": pickle.dumps([1, 2, 3]),
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
}
IMAGES = {f"{name} as {suffix}": (f"a{suffix}", content) for suffix in FORMATS for name, content in NO_IMAGES.items()}
IMAGES |= {
    f"{share}% of {suffix}": (f"a{suffix}", encoded(form)[: len(encoded(form)) * share // 100])
    for suffix, form in FORMATS.items()
    for share in (5, 60)
}
IMAGES |= {f"{name} as DICOM": ("a.dcm", content) for name, content in NO_IMAGES.items()}


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_no_image(name, tmp_path):
    file, content = IMAGES[name]
    (tmp_path / file).write_bytes(content)
    check(tmp_path, read_array, tmp_path / file, "")
    if not file.endswith(".dcm"):
        check(tmp_path, read_mask, tmp_path / file, "")


COLOURS = {
    "CMYK": ("a.jpg", lambda: encoded("jpeg", Image.fromarray(PIXELS).convert("CMYK")), "colour mode CMYK"),
    "transparent": ("a.png", lambda: encoded("png", np.dstack([PIXELS, PIXELS[..., :1]])), "transparent pixels"),
    "transparent grey": ("a.png", lambda: encoded("png", np.dstack([PIXELS[..., :1]] * 2)), "transparent pixels"),
    "fractions": ("a.tif", lambda: encoded("tiff", PIXELS[..., 0].astype(np.float32)), "colour mode F"),
    "Lab": ("a.tif", lambda: encoded("tiff", Image.fromarray(PIXELS).convert("LAB")), "colour mode LAB"),
    "a bomb": ("a.png", lambda: bomb(60_000), "damaged or truncated image"),
}  # fmt: skip


def bomb(side):
    """A PNG that says it is huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("name", COLOURS)
def test_images_of_unclear_colours(name, tmp_path):
    file, content, message = COLOURS[name]
    (tmp_path / file).write_bytes(content())
    check(tmp_path, read_array, tmp_path / file, message)


@pytest.mark.parametrize("name", ["none.png", "none.dcm", "folder.png", "folder.dcm"])
def test_what_is_no_file(name, tmp_path):
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    check(tmp_path, read_array, tmp_path / name, "")


# Masks --------------------------------------------------------------------------------------------------------------


def mask(values):
    return np.array(values, dtype=np.uint8).repeat(8, 0).repeat(8, 1)


MASKS = {
    "two equally bright colours": (mask([[[0, 90, 0], [90, 0, 0]]]), "equally bright"),
    "another size": (np.zeros((24, 40), dtype=np.uint8), "its image of (24, 32)"),
    "turned": (np.zeros((32, 24), dtype=np.uint8), "its image of (24, 32)"),
    "nothing abnormal": (np.zeros((24, 32), dtype=np.uint8), "abnormal, but its mask is empty"),
    "black in colour": (np.zeros((24, 32, 3), dtype=np.uint8), "abnormal, but its mask is empty"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_that_do_not_fit(name, tmp_path):
    values, message = MASKS[name]
    (tmp_path / "image.png").write_bytes(encoded("png"))
    (tmp_path / "mask.png").write_bytes(encoded("png", values))
    rows = pd.DataFrame(
        [{"image": "image.png", "class": "polyp", "label": "abnormal", "split": "test", "mask": "mask.png"}]
    )
    dataset = EndoscopyDataset(rows, tmp_path, "wli")
    check(tmp_path, lambda _: dataset[0], tmp_path / "mask.png", message)


def test_a_normal_image_with_an_abnormal_part(tmp_path):
    for name, values in (("image", PIXELS), ("mask", np.full((24, 32), 255, dtype=np.uint8))):
        (tmp_path / f"{name}.png").write_bytes(encoded("png", values))
    row = {"image": "image.png", "class": "colon", "split": "test", "mask": "mask.png"}
    dataset = EndoscopyDataset(pd.DataFrame([row | {"label": "normal"}, row | {"label": "abnormal"}]), tmp_path, "wli")
    check(tmp_path, lambda _: dataset[0], tmp_path / "mask.png", "normal, but its mask has an abnormal part")


# Splits -------------------------------------------------------------------------------------------------------------

ROWS = [
    "image,class,label,split",
    "a/0.png,colon,normal,train",
    "a/1.png,colon,normal,val",
    "b/0.png,polyp,abnormal,val",
    "a/2.png,colon,normal,test",
    "b/1.png,polyp,abnormal,test",
]


def changed(number, old, new):
    return "\n".join(row.replace(old, new) if place == number else row for place, row in enumerate(ROWS)).encode()


def without(*numbers):
    return "\n".join(row for place, row in enumerate(ROWS) if place not in numbers).encode()


SPLITS = {
    "empty": (b"", "no readable table"),
    "blank lines": (b"\n\n\n", "no readable table"),
    "a header alone": (ROWS[0].encode(), "has no normal image"),
    "another header": (b"file,kind\na,b\n", "has no column image, class, label, split"),
    "semicolons": ("\n".join(ROWS).replace(",", ";").encode(), "has no column"),
    "tabs": ("\n".join(ROWS).replace(",", "\t").encode(), "has no column"),
    "no header": (without(0), "has no column"),
    "another code": ("\n".join(ROWS).replace("polyp", "pölÿp").encode("latin-1"), "UTF-8"),
    "two bytes a letter": ("\n".join(ROWS).encode("utf-16"), "write it as CSV in UTF-8"),
    "an image": (encoded("png"), "write it as CSV in UTF-8"),
    "a longer row": (changed(3, "val", "val,x,y,z"), "no readable table"),
    "longer rows": ("\n".join([ROWS[0], *(f"x,{row}" for row in ROWS[1:])]).encode(), "longer than the header"),
    "an open quote": (changed(3, "polyp", '"polyp'), "no readable table"),
    "zeros": (b"\0" * 100, "zero bytes"),
    "a zero in a name": (changed(1, "a/0.png", "a\0.png"), "zero bytes"),
    "a name of great length": (changed(1, "a/0.png", "a" * 300), "image files that do not exist"),
    "no class": (changed(0, "class", "kind"), "has no column class"),
    "no label": (changed(0, "label", "kind"), "has no column label"),
    "no split": (changed(0, "split", "kind"), "has no column split"),
    "no image": (changed(0, "image", "file"), "has no column image"),
    "a fourth split": (changed(1, "train", "training"), "unknown split 'training'"),
    "a split of blanks": (changed(1, "train", "train "), "unknown split 'train '"),
    "an empty split": (changed(1, "train", ""), "unknown split ''"),
    "a split in capitals": (changed(1, "train", "Train"), "unknown split 'Train'"),
    "an empty name": (changed(1, "a/0.png", ""), "row 2 has no image"),
    "an empty class": (changed(2, "colon", ""), "row 3 has no class"),
    "an empty label": (changed(3, "abnormal", " "), "row 4 has no label"),
    "a label in capitals": (changed(1, "normal", "Normal"), "label 'Normal' would count as abnormal"),
    "a label with blanks": (changed(2, "normal", "normal "), "label 'normal ' would count as abnormal"),
    "the same twice": (changed(2, "a/1.png", "a/0.png"), "stands in it 2 times (train, val)"),
    "abnormal training": (changed(1, "normal", "abnormal"), "training images are abnormal"),
    "absent images": (changed(1, "a/0.png", "a/9.png"), "image files that do not exist"),
    "absent masks": (
        changed(0, "split", "split,mask").replace(b"polyp,abnormal,val", b"polyp,abnormal,val,none.png"),
        "mask files that do not exist",
    ),
    "a folder for an image": (changed(1, "a/0.png", "a"), "image files that do not exist"),
    "another slash": (changed(1, "a/0.png", "a\\0.png"), "image files that do not exist"),
    "no training": (without(1), "the train split has no normal image"),
    "no normal validation": (without(2), "the val split has no normal image"),
    "no abnormal validation": (without(3), "the val split has no abnormal image"),
    "no normal test": (without(4), "the test split has no normal image"),
    "no abnormal test": (without(5), "the test split has no abnormal image"),
}  # fmt: skip


@pytest.fixture
def images(tmp_path):
    for name in ("a/0", "a/1", "a/2", "b/0", "b/1"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded("png"))
    return tmp_path


@pytest.mark.parametrize("name", SPLITS)
def test_splits_that_cannot_be_used(name, images):
    content, message = SPLITS[name]
    (images / "split.csv").write_bytes(content)
    check(images, read_split, images / "split.csv", message)


def test_the_split_that_the_others_differ_from_is_good(images):
    (images / "split.csv").write_bytes(without())
    assert len(read_split(images / "split.csv")) == 5


GROUPS = {
    "no regular expression": ({"group_pattern": "(["}, None, "is no regular expression"),
    "no group found": ({"group_pattern": r"patient(\d+)"}, None, "finds no group"),
    "one group": ({"group_pattern": "normal|abnormal"}, None, "groups are too few"),
    "pattern and column": ({"group_pattern": "a", "group_column": "b"}, None, "not by both"),
    "no table": ({"group_column": "patient"}, None, "is not there"),
    "no such column": ({"group_column": "patient"}, "image,who\n", "has no column patient"),
    "a gap in the table": ({"group_column": "patient"}, "image,patient\nnormal/0.png,1\n", "does not tell the patient"),
    "a damaged table": ({"group_column": "patient"}, "", "no readable table"),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_that_cannot_be_told(name, tmp_path):
    options, table, message = GROUPS[name]
    for number in range(4):
        for label in ("normal", "abnormal"):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{number}.png").write_bytes(encoded("png"))
    if table is not None:
        (tmp_path / "images.csv").write_text(table)
    with pytest.raises(ValueError, match=r".") as caught:
        split_folder(tmp_path, **options)
    assert message in str(caught.value)


# Configurations -----------------------------------------------------------------------------------------------------

GOOD = {
    "datasets": {"set": {"class_path": "anomalib_memd.Phantom"}},
    "methods": {"MEMD": {"class_path": "MEMD", "paired": True}, "Rival": {"class_path": "Padim"}},
}


def config(**changes):
    return yaml.safe_dump(GOOD | changes, sort_keys=False).encode()


def method(**options):
    return config(methods={"Rival": {"class_path": "Padim"} | options})


CONFIGS = {
    "empty": (b"", "is a mapping"),
    "a list": (b"- a\n- b\n", "is a mapping"),
    "a word": (b"benchmark", "is a mapping"),
    "no YAML": (b"datasets: [unclosed", "no readable configuration"),
    "tabs": (b"datasets:\n\tset: 1\n", "no readable configuration"),
    "binary": (b"\x00\x01\x02", "no readable configuration"),
    "another code": ("methods: {ä: 1}".encode("latin-1"), "no readable configuration"),
    "code": (b"!!python/object/apply:os.system ['touch was-here']", "no readable configuration"),
    "a module": (b"datasets: !!python/module:os", "no readable configuration"),
    "no data": (config(datasets=None), "'datasets' is missing or empty"),
    "a list of data": (config(datasets=["set"]), "'datasets' is missing or empty"),
    "no methods": (config(methods={}), "'methods' is missing or empty"),
    "an unknown section": (config(metods={}), "unknown option metods"),
    "an unknown option": (method(max_epoch=3), "unknown option max_epoch"),
    "no class": (config(methods={"Rival": {"paired": True}}), "Rival"),
    "nothing of a method": (config(methods={"Rival": None}), "Rival"),
    "a method of one word": (config(methods={"Rival": "Padim"}), "Rival"),
    "data of one word": (config(datasets={"set": "Phantom"}), "set"),
    "a third modality": (method(modality="uv"), "it can be wli or nbi"),
    "a teacher of nobody": (method(teacher_of="Nobody"), "needs Nobody"),
    "a teacher that comes later": (
        config(methods={"A": {"class_path": "A", "teacher_of": "B"}, "B": {"class_path": "B"}}),
        "needs B",
    ),
    "time of nobody": (method(learns=True, max_time="Nobody"), "needs Nobody"),
    "a cross of nobody": (config(cross=["set", "other"]), "'cross' names other"),
    "seeds of words": (config(seeds=["a"]), "seeds"),
    "seeds of fractions": (config(seeds=[0.5]), "seeds"),
    "negative seeds": (config(seeds=[-1]), "seeds"),
    "a time of words": (config(max_time=[1]), "max_time"),
    "a negative time": (config(max_time=-5), "max_time"),
    "another processor": (config(accelerator="abacus"), "accelerator"),
    "eight bits": (method(precision="int8"), "it can be 32-true or bf16-mixed"),
    "arguments in a list": (method(init_args=["a"]), "init_args"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_cannot_be_understood(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = CONFIGS[name]
    (tmp_path / "benchmark.yaml").write_bytes(content)
    check(tmp_path, load_config, tmp_path / "benchmark.yaml", message)


def test_the_configuration_that_the_others_differ_from_is_good(tmp_path):
    (tmp_path / "benchmark.yaml").write_bytes(config())
    assert len(load_config(tmp_path / "benchmark.yaml").methods) == 2


OPTIONS = {
    "evidence of a word": (Head, {"evidence": "words"}),
    "a share of 0": (Head, {"false_positive_rate": 0.0}),
    "a share of 1": (Head, {"false_positive_rate": 1.0}),
    "a negative prior": (Head, {"prior": -1.0}),
    "a negative weight of distance": (Head, {"distance_weight": -1.0}),
    "a negative weight of the image": (Head, {"image_weight": -1.0}),
    "no shrinkage": (Head, {"shrinkage": 0.0}),
    "no ridge": (Head, {"ridge": 0.0}),
    "no ridge at half size": (Head, {"overview_ridge": 0.0}),
    "a width of 0": (Encoder, {"width": 0}),
    "negative hidden channels": (Encoder, {"hidden": -1}),
    "a fusion of a word": (Encoder, {"fusion": "words"}),
    "no fusion layer": (Encoder, {"fusion_layers": 0}),
    "heads that do not divide": (Encoder, {"fusion_heads": 7}),
    "no whitening at 0": (Encoder, {"whitening": 0.0}),
    "a kernel of 0": (Encoder, {"mar_kernel_size": 0}),
    "a negative distance": (Encoder, {"mar_distance": -1}),
    "an energy of a word": (Encoder, {"energy": "words"}),
    "a kind of a word": (Negatives, {"kind": "words"}),
    "no negative": (Negatives, {"per_image": 0}),
    "negative noise": (Negatives, {"feature_noise": -1.0}),
    "no epoch": (Training, {"teacher_epochs": 0}),
    "negative epochs": (Training, {"student_epochs": -1}),
    "no learning rate": (Training, {"learning_rate": 0.0}),
    "a warm-up of 2": (Training, {"warmup": 2.0}),
    "negative noise on all": (Training, {"noise": -1.0}),
    "a chance of 2": (Training, {"modality_dropout": 2.0}),
    "a negative weight": (Training, {"cosine_weight": -1.0}),
    "a distance of a word": (Training, {"global_distance": "words"}),
    "no patience": (Training, {"patience": 0}),
    "no interval": (Training, {"validation_interval": 0}),
    "an absent teacher": (Training, {"teacher_ckpt": "none.ckpt"}),
    "a negative weight of distillation": (Distillation, {"weight": -1.0}),
    "a direction of a word": (Distillation, {"kl_direction": "words"}),
    "students of a word": (Distillation, {"students": "words"}),
    "a temperature of 0": (Distillation, {"temperature": 0.0}),
    "bounds upside down": (Distillation, {"temperature_bounds": (5.0, 1.0)}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_out_of_their_range(name):
    group, values = OPTIONS[name]
    evidence = {} if group is Head else {"evidence": "encoding"}
    (option,) = values
    with pytest.raises(ValueError, match=r".") as caught:
        small_memd(**evidence, **values)
    said = str(caught.value)
    assert option in said or str(next(iter(values.values()))) in said, said


# Checkpoints --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint, and what is in it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = deployable_memd()
    content = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": "2.5.0",
    }
    model.on_save_checkpoint(content)
    torch.save(content, folder / "model.ckpt")
    load_judge(folder / "model.ckpt")
    return (folder / "model.ckpt").read_bytes(), content


def lacking(*keys):
    return lambda content: {key: value for key, value in content.items() if key not in keys}


def renamed(content):
    return content | {"state_dict": {f"net.{key}": value for key, value in content["state_dict"].items()}}


def reshaped(content):
    return content | {
        "state_dict": {key: value[..., :1] if value.ndim else value for key, value in content["state_dict"].items()}
    }


def with_options(content, **options):
    return content | {"hyper_parameters": content["hyper_parameters"] | options}


CHECKPOINTS = {
    "no weights": lacking("state_dict"),
    "no options": lacking("hyper_parameters"),
    "no version": lacking("memd_version"),
    "nothing trained": lacking("memd_trained"),
    "version 0.1": lambda content: content | {"memd_version": "0.1"},
    "version 0.4": lambda content: content | {"memd_version": "0.4.0"},
    "weights of another model": renamed,
    "weights of another shape": reshaped,
    "weights of nothing": lambda content: content | {"state_dict": {}},
    "options of nothing": lambda content: content | {"hyper_parameters": {}},
    "options of another model": lambda content: content | {"hyper_parameters": {"n_features": 100}},
    "an unknown backbone": lambda content: with_options(content, backbone="no_net"),
    "a list": lambda content: [content],
    "a tensor": lambda content: torch.zeros(3),
    "a number": lambda content: 3,
    "weights alone": lambda content: content["state_dict"],
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_something_else(name, trained, tmp_path):
    torch.save(CHECKPOINTS[name](trained[1]), tmp_path / "model.ckpt")
    fragment = "trained" if name == "nothing trained" else str(tmp_path)
    with pytest.raises((ValueError, RuntimeError)) as caught:
        load_judge(tmp_path / "model.ckpt")
    assert fragment in str(caught.value)


@pytest.mark.parametrize("share", [0, 1, 10, 50, 90, 99])
@pytest.mark.parametrize("use", [load_judge, LearnedNBI])
def test_checkpoints_that_are_cut_off(share, use, trained, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(trained[0][: len(trained[0]) * share // 100])
    check(tmp_path, use, tmp_path / "model.ckpt", "no readable checkpoint")


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_checkpoint(name, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(NO_IMAGES[name])
    check(tmp_path, load_judge, tmp_path / "model.ckpt", "no readable checkpoint")


def test_a_checkpoint_whose_bits_are_flipped(trained, tmp_path):
    content = bytearray(trained[0])
    for place in range(1000, len(content), len(content) // 50):
        content[place] ^= 0xFF
    (tmp_path / "model.ckpt").write_bytes(content)
    check(tmp_path, load_judge, tmp_path / "model.ckpt", "no readable checkpoint")


# Exported models ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A student in every format that is read without trust."""
    folder = tmp_path_factory.mktemp("exported")
    student = deployable_memd().deployed(Modality.WLI)
    for kind in ("openvino", "onnx", "torchscript", "torch_export"):
        getattr(student, f"to_{kind}")(folder / kind)
    found = {path.suffix: path for path in folder.rglob("model.*")}
    return {suffix: found[suffix] for suffix in (".xml", ".bin", ".onnx", ".ts", ".pt2")}


def copied(exported, suffix, folder):
    path = shutil.copy(exported[suffix], folder / f"model{suffix}")
    if suffix == ".xml":
        shutil.copy(exported[".bin"], folder / "model.bin")
    return Path(path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".xml", ".onnx", ".ts", ".pt2"])
@pytest.mark.parametrize("share", [0, 1, 30, 80])
def test_exported_models_that_are_cut_off(suffix, share, exported, tmp_path):
    path = copied(exported, suffix, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * share // 100])
    check(tmp_path, load_judge, path, "no model that MEMD has exported, or a damaged one")


@pytest.mark.parametrize("suffix", [".xml", ".onnx", ".ts", ".pt2"])
@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_exported_model(suffix, name, tmp_path):
    (tmp_path / f"model{suffix}").write_bytes(NO_IMAGES[name])
    check(tmp_path, load_judge, tmp_path / f"model{suffix}", "no model that MEMD has exported, or a damaged one")


@pytest.mark.slow
@pytest.mark.parametrize("share", [None, 0, 50, 99])
def test_an_ir_whose_weights_are_missing_or_cut_off(share, exported, tmp_path):
    path = copied(exported, ".xml", tmp_path)
    weights = path.with_suffix(".bin")
    content = weights.read_bytes()
    weights.unlink()
    if share is not None:
        weights.write_bytes(content[: len(content) * share // 100])
    check(tmp_path, load_judge, path, "")


FACTS = {
    "no branch": lambda facts: {key: value for key, value in facts.items() if key != "branch"},
    "no threshold": lambda facts: {key: value for key, value in facts.items() if key != "threshold"},
    "a fourth branch": lambda facts: facts | {"branch": "uv"},
    "a size of words": lambda facts: facts | {"image_size": 3},
    "classes of a number": lambda facts: facts | {"classes": 3},
    "an unknown fact": lambda facts: facts | {"colour": "red"},
    "a list": lambda facts: [facts],
    "nothing": lambda facts: {},
    "a threshold of words": lambda facts: facts | {"threshold": "high"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("suffix", [".xml", ".onnx"])
def test_metadata_that_is_not_that_of_an_export(name, suffix, exported, tmp_path):
    path = copied(exported, suffix, tmp_path)
    facts = json.loads(read_metadata(path).to_json())

    class Forged:
        to_json = staticmethod(lambda: json.dumps(FACTS[name](facts)))

    write_metadata(path, Forged)
    check(tmp_path, load_judge, path, "no model that MEMD has exported, or a damaged one")


def test_a_model_of_others_is_not_taken_for_one_of_ours(tmp_path):
    for suffix, save in (
        (".ts", lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(3, 1)), path)),
        (".onnx", lambda path: torch.onnx.export(torch.nn.Linear(3, 1), (torch.zeros(1, 3),), path, dynamo=False)),
    ):
        path = tmp_path / f"model{suffix}"
        save(str(path))
        check(tmp_path, load_judge, path, "no model that MEMD has exported")


# What is malicious --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".ts", ".pt2", ".onnx", ".xml"])
def test_a_pickle_runs_nothing_whatever_it_is_called(suffix, tmp_path):
    marker, path = tmp_path / "was here", tmp_path / f"model{suffix}"
    torch.save({"state_dict": {}, "hyper_parameters": {}, KEY: Marker(marker), "model": Marker(marker)}, path)
    check(tmp_path, load_judge, path, "")
    path.write_bytes(pickle.dumps(Marker(marker)))
    check(tmp_path, load_judge, path, "")
    assert not marker.exists()


def test_a_pickle_in_the_options_of_a_checkpoint_runs_nothing(trained, tmp_path):
    content = trained[1] | {
        "hyper_parameters": trained[1]["hyper_parameters"] | {"modality": Marker(tmp_path / "was here")}
    }
    torch.save(content, tmp_path / "model.ckpt")
    check(tmp_path, load_judge, tmp_path / "model.ckpt", "no readable checkpoint")
    check(tmp_path, MEMD.load_from_checkpoint, tmp_path / "model.ckpt", "no readable checkpoint")
    check(tmp_path, LearnedNBI, tmp_path / "model.ckpt", "no readable checkpoint")


# Anything -----------------------------------------------------------------------------------------------------------

WORDS = ["normal", "abnormal", "train", "val", "test", "image", "label", "a/0.png", "\0", "ä"]
CELLS = st.sampled_from([*',\n\r\t"; ', *WORDS])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["datasets", "methods", "seeds", "cross", "max_time", "quick", "accelerator", "latency", "other"]
)


def refused_or_read(use, path, content):
    """Whatever a file holds, it is read, or refused by an error that names it."""
    path.write_bytes(content)
    try:
        use(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017  it may be read as well


@given(st.binary(max_size=300) | st.lists(CELLS, max_size=60).map(lambda cells: "".join(cells).encode()))
def test_any_split(tmp_path_factory, content):
    refused_or_read(read_split, tmp_path_factory.getbasetemp() / "any.csv", content)


@given(st.binary(max_size=300) | st.dictionaries(NAMES, VALUES, max_size=4).map(lambda x: yaml.safe_dump(x).encode()))
def test_any_configuration(tmp_path_factory, content):
    refused_or_read(load_config, tmp_path_factory.getbasetemp() / "any.yaml", content)


FACTS_OF_ONE = {
    "branch": "wli", "classes": [], "threshold": 0.5, "raw_threshold": 0, "image_size": [8, 8], "version": "1",
    "checkpoint": "",
}  # fmt: skip


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FACTS_OF_ONE, VALUES)) | VALUES)
def test_any_metadata(content):
    try:
        found = Metadata.from_json(json.dumps(FACTS_OF_ONE | content if isinstance(content, dict) else content))
    except (ValueError, TypeError, KeyError):
        return
    assert len(found.image_size) in {0, 2}
    assert all(isinstance(side, int) and side > 0 for side in found.image_size)
    assert isinstance(found.threshold, float)
    assert all(isinstance(name, str) for name in (*found.classes, found.version, found.checkpoint))


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_manifest_of_scores(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "run.json"

    def use(_):
        with contextlib.closing(ScoreTable(path.parent, {"model": "this"})):
            pass

    (path.parent / "scores.csv").unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        use(path)
    except ValueError as error:
        assert str(path.parent) in str(error)  # noqa: PT017


# Videos -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = VideoWriter(path, 10)
    for number in range(20):
        writer.write(number / 10, np.roll(PIXELS, number, 0).repeat(4, 0).repeat(4, 1))
    writer.close()
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mov", ".mkv"])
@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_video(name, suffix, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(NO_IMAGES[name])
    check(tmp_path, lambda path: list(read_video(path)), tmp_path / f"a{suffix}", "")


@pytest.mark.parametrize("share", [0, 1, 20, 50])
def test_videos_that_are_cut_off(share, clip, tmp_path):
    (tmp_path / "a.mp4").write_bytes(clip[: len(clip) * share // 100])
    check(tmp_path, lambda path: list(read_video(path)), tmp_path / "a.mp4", "")


def test_a_video_without_pictures(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    check(tmp_path, lambda path: list(read_video(path)), tmp_path / "a.mp4", "no such video")


# Results that are gone on with --------------------------------------------------------------------------------------

RUNS = {
    "another model": ('{"model": "other"}', "holds scores with another model"),
    "no JSON": ("{", "give another --output"),
    "a list": ("[]", "give another --output"),
    "nothing": ("", "give another --output"),
}


@pytest.mark.parametrize("name", RUNS)
def test_scores_of_something_else(name, tmp_path):
    content, message = RUNS[name]
    (tmp_path / "run.json").write_text(content)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        ScoreTable(tmp_path, {"model": "this"})
    assert str(tmp_path) in str(caught.value)
    assert contents(tmp_path) == before


def test_a_table_of_other_columns(tmp_path):
    (tmp_path / "run.json").write_text('{"model": "this"}')
    (tmp_path / "scores.csv").write_text("a,b\n1,2\n")
    check(
        tmp_path, lambda path: ScoreTable(path.parent, {"model": "this"}), tmp_path / "scores.csv", "another --output"
    )
