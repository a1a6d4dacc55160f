"""The commands of anomalib that are passed on, and what is kept back."""

import logging
import sys
import warnings

import pytest
import torch

from anomalib_memd.cli import anomalib as module
from anomalib_memd.cli.main import main
from anomalib_memd.cli.quiet import keep_quiet


@pytest.mark.parametrize("arguments", [["--seed", "7"], ["--seed=7"]])
def test_a_seed_is_applied_and_not_passed_on(arguments, monkeypatch):
    drawn, passed = [], []
    monkeypatch.setattr(sys, "argv", ["anomalib-memd"])
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # They go back to what they were.
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(
        module, "anomalib_main", lambda: (passed.append(sys.argv[1:]), drawn.append(float(torch.rand(()))))
    )
    for _ in range(2):
        main(["train", *arguments, "--model", "x"])
    assert passed == [["train", "--model", "x"]] * 2
    assert drawn[0] == drawn[1] == float(torch.rand((), generator=torch.Generator().manual_seed(7)))


def test_a_seed_that_is_none_is_refused():
    with pytest.raises(SystemExit, match="--seed takes a whole number of at least 0, got 'x'"):
        main(["test", "--seed", "x"])


def test_notices_are_kept_back_and_all_else_is_shown(caplog):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        keep_quiet()
        warnings.warn("Importing from timm.models.layers is deprecated, please", FutureWarning, stacklevel=1)
        warnings.warn("The disk is full", stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["The disk is full"]
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    try:
        with caplog.at_level(logging.INFO):
            logger.info("GPU available: False")
            logger.info("Stage 1 of 2")
        assert [record.getMessage() for record in caplog.records] == ["Stage 1 of 2"]
    finally:
        for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
            logging.getLogger(f"{name}.utilities.rank_zero").filters.clear()
        logging.getLogger("timm").setLevel(logging.NOTSET)
