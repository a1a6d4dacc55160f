"""What 'anomalib-memd doctor' finds, and what it says of what is missing."""

from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

from anomalib_memd.cli import doctor as module
from anomalib_memd.cli.main import main


def found():
    return module.doctor().set_index("what")


def test_versions_are_those_that_are_installed():
    table = found()
    for name in module.REQUIRED:
        assert table.found[name] == version(name)
        assert not table.remedy[name]
    assert str(torch.get_num_threads()) in table.found["CPU"]
    assert table.found["self-test"].endswith("passed")


def test_what_is_missing_comes_with_its_remedy(monkeypatch, tmp_path):
    def absent(name):
        if name in module.OPTIONAL:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(module, "version", absent)
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    table = found()
    for name, remedy in module.OPTIONAL.items():
        assert table.found[name] == "not installed"
        assert table.remedy[name] == remedy
    assert "HF_HUB_OFFLINE is set" in table.found["weights of resnet50.tv_in1k"]
    assert "backbone_weights FILE" in table.remedy["weights of resnet50.tv_in1k"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "fetched when" in found().found["weights of resnet50.tv_in1k"]
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda repository, file: f"{tmp_path}/{file}")
    assert found().found["weights of resnet50.tv_in1k"] == f"in {tmp_path}"


def test_a_failed_self_test_prints_the_table_and_ends_with_an_error(monkeypatch, capsys):
    def broken():
        return 1 / 0

    monkeypatch.setattr(module, "_self_test", broken)
    with pytest.raises(SystemExit, match="anomalib-memd: The self-test failed: division by zero"):
        main(["doctor"])
    assert "report it with this table" in capsys.readouterr().out


def test_the_command_prints_the_table(capsys):
    main(["doctor"])
    printed = capsys.readouterr().out
    assert "self-test" in printed
    assert "anomalib" in printed
