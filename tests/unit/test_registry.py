"""MEMD and its data are found by anomalib."""

import pytest
from anomalib.data import get_datamodule
from anomalib.models import get_model, list_models

from anomalib_memd import MEMD, Kvasir, Phantom

SMALL = {"backbone": "resnet18", "backbone_weights": "random", "encoder": {"width": 16}}


@pytest.mark.parametrize("name", ["MEMD", "memd"])
def test_model_by_name(name):
    assert isinstance(get_model(name, **SMALL), MEMD)


@pytest.mark.parametrize("path", ["MEMD", "anomalib_memd.MEMD", "anomalib_memd.models.MEMD"])
def test_model_by_class_path(path):
    assert isinstance(get_model({"class_path": path, "init_args": SMALL}), MEMD)


def test_model_is_listed():
    assert "MEMD" in list_models("pascal")


@pytest.mark.parametrize(("path", "cls"), [("anomalib_memd.Kvasir", Kvasir), ("Kvasir", Kvasir), ("Phantom", Phantom)])
def test_datamodule_by_name_and_class_path(path, cls, tmp_path):
    assert isinstance(get_datamodule({"class_path": path, "init_args": {"root": str(tmp_path)}}), cls)


def test_other_modules_stay_refused():
    with pytest.raises(ModuleNotFoundError):
        get_model({"class_path": "os.path.join"})
