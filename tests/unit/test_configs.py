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
from anomalib_memd.models.memd.options import EnergyForm

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_memd_holds_the_defaults():
    written = flat(yaml.safe_load((CONFIGS / "memd.yaml").read_text())["init_args"])
    usual = flat({name: plain(value) for name, value in defaults(MEMD).items() if name not in COMPONENTS})
    assert written == {name: usual[name] for name in written}
    assert set(usual) - set(written) == {"training.teacher_ckpt", "training.cache_dir", "backbone_weights"}


def test_paper_preset_is_to_the_letter():
    config = yaml.safe_load((CONFIGS / "memd_paper.yaml").read_text())
    config["init_args"]["backbone_weights"] = "random"
    model = get_model(config)
    assert model.features.synthesis.kind == "noise"
    assert model.model.teacher.encoders["wli"].reconstruction.attention.form is EnergyForm.PAPER
    assert model.trainer_arguments["max_epochs"] == 30
    assert model.model.teacher.fusion.layers[0].query.out_channels == 512


@pytest.mark.parametrize("name", ["kvasir", "kvasir_colon", "gastrovision_colon", "wce_bleeding"])
def test_data_configs_build(name):
    datamodule = get_datamodule(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))
    assert str(datamodule.root) == f"datasets/{name.replace('_', '-')}"


def test_every_folder_of_the_package_is_in_the_wheel():
    root = CONFIGS.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(file.parent.relative_to(root).parts) for file in (root / "anomalib_memd").rglob("__init__.py")}
    assert set(listed) == folders | {"anomalib_memd.configs"}
