"""The configs are what they say."""

import inspect
from enum import Enum
from pathlib import Path

import pytest
import yaml
from anomalib.data import get_datamodule
from anomalib.models import get_model

from anomalib_memd import MEMD
from anomalib_memd.models.memd.masked_attention import EnergyForm
from anomalib_memd.models.memd.synthesis import SynthesisKind

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def plain(value):
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def test_memd_holds_the_defaults():
    written = yaml.safe_load((CONFIGS / "memd.yaml").read_text())["init_args"]
    defaults = {name: plain(p.default) for name, p in inspect.signature(MEMD.__init__).parameters.items()}
    assert written == {name: defaults[name] for name in written}
    left_out = {"self", "pre_processor", "post_processor", "evaluator", "visualizer"}
    assert set(defaults) - set(written) == left_out | {"teacher_ckpt", "cache_dir", "backbone_weights"}


def test_paper_preset_is_to_the_letter():
    config = yaml.safe_load((CONFIGS / "memd_paper.yaml").read_text())
    config["init_args"]["pre_trained"] = False
    model = get_model(config)
    assert model.features.synthesis.kind is SynthesisKind.NOISE
    assert model.model.teacher.encoders["wli"].reconstruction.attention.form is EnergyForm.PAPER
    assert model.trainer_arguments["max_epochs"] == 30
    assert model.model.teacher.fusion.layers[0].query.out_channels == 512


@pytest.mark.parametrize("name", ["kvasir", "kvasir_colon", "gastrovision_colon"])
def test_data_configs_build(name):
    datamodule = get_datamodule(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))
    assert str(datamodule.root) == f"datasets/{name.replace('_', '-')}"
