"""The configs are what they say."""

import tomllib
from pathlib import Path

import pytest
import yaml
from anomalib.data import get_datamodule
from anomalib.models import get_model

from anomalib_memd import MEMD
from anomalib_memd.components.checkpoints import COMPONENTS, defaults, flat
from anomalib_memd.components.options import plain
from anomalib_memd.models.memd.options import EnergyForm, KLDirection

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_memd_holds_the_defaults():
    networks = (
        "encoder.",
        "training.",
        "negatives.student_noise",
        "distillation.kl",
        "distillation.temp",
        "distillation.ad",
    )
    written = flat(yaml.safe_load((CONFIGS / "memd.yaml").read_text())["init_args"])
    usual = flat({name: plain(value) for name, value in defaults(MEMD).items() if name not in COMPONENTS})
    assert written == {name: usual[name] for name in written}
    # What is solved for has no use of what networks are trained by.
    assert all(name.startswith(("backbone_weights", *networks)) for name in set(usual) - set(written))


def test_paper_preset_is_to_the_letter_where_the_paper_says_something():
    config = yaml.safe_load((CONFIGS / "memd_paper.yaml").read_text())
    config["init_args"]["backbone_weights"] = "random"
    model = get_model(config)
    encoder = model.model.teacher.encoders["wli"]
    assert encoder.reconstruction.attention.form is EnergyForm.PAPER
    assert not encoder.residual
    assert [layer.query.out_channels for layer in model.model.teacher.fusion.layers] == [512, 512]
    assert model.objective.distillation_loss.direction is KLDirection.STUDENT_TARGET
    assert model.objective.temperature.base == 5
    assert model.model.learns


def test_the_benchmark_and_the_preset_mean_the_same_by_as_published():
    preset = yaml.safe_load((CONFIGS / "memd_paper.yaml").read_text())["init_args"]
    for name, method in (("benchmark", "MEMD as published"), ("ablation", "as published")):
        run = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["methods"][method]["init_args"]
        ours, theirs = (MEMD(backbone_weights="random", **options).options for options in (preset, run))
        assert ours == theirs


@pytest.mark.parametrize("name", ["kvasir", "kvasir_colon", "gastrovision_colon", "wce_bleeding"])
def test_data_configs_build(name):
    datamodule = get_datamodule(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))
    assert str(datamodule.root) == f"datasets/{name.replace('_', '-')}"


def test_every_folder_of_the_package_is_in_the_wheel():
    root = CONFIGS.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(file.parent.relative_to(root).parts) for file in (root / "anomalib_memd").rglob("__init__.py")}
    assert set(listed) == folders | {"anomalib_memd.configs"}
