"""Coefficients of the closed-form translation are found again in what it has translated."""

import inspect

import pytest
import torch

from anomalib_memd import SpectralNBI
from anomalib_memd.cli import main
from anomalib_memd.translation.fitting import fit_spectral, match_distribution
from tests.conftest import SHARED, needs_shared

DEFAULTS = {name: option.default for name, option in inspect.signature(SpectralNBI).parameters.items()}


def test_colours_come_close_to_those_of_another_processor():
    random = torch.Generator().manual_seed(0)
    wli = torch.rand(2000, 3, generator=random) * torch.tensor([0.4, 0.3, 0.3]) + torch.tensor([0.5, 0.3, 0.2])
    other = SpectralNBI((0, 0.5, 0.5), (0.3, 0.7, 0), 0.2, 0.2, (1.2, 1.8, 1.2), curve=1.3)
    nbi = other(wli.T[:, :, None])[:, :, 0].T
    before, after = match_distribution(wli, nbi, 200, random, fit_contrasts=True)
    assert after["distance"] < 0.25 * before["distance"]
    assert sum(after["weights_415"]) == 1
    fitted = SpectralNBI(**{name: value for name, value in after.items() if name != "distance"})
    found = fitted(wli.T[:, :, None])[:, :, 0].T
    assert (found - nbi).abs().mean() < 0.4 * (SpectralNBI()(wli.T[:, :, None])[:, :, 0].T - nbi).abs().mean()


def test_the_command_prints_both(phantom_root, capsys):
    folder = next(phantom_root.iterdir())
    main(["fit-spectral", "--wli", str(folder / "wli"), "--nbi", str(folder / "nbi"), "--steps", "30"])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {"weights_415", "gains", "curve"} <= set(rows)
    before, after = (float(value) for value in rows["distance"].split()[1:])
    assert after < before


def test_contrasts_are_left_alone_unless_asked_for():
    random = torch.Generator().manual_seed(0)
    wli, nbi = torch.rand(2, 500, 3, generator=random)
    _, after = match_distribution(wli, nbi, 20, random)
    assert (after["contrast_415"], after["contrast_540"]) == (DEFAULTS["contrast_415"], DEFAULTS["contrast_540"])
    _, after = match_distribution(wli, nbi, 20, random, fit_contrasts=True)
    assert after["contrast_415"] != DEFAULTS["contrast_415"]


@needs_shared
@pytest.mark.slow
def test_the_defaults_are_what_the_fit_finds():
    found = fit_spectral(SHARED / "data" / "kvasir-colon", SHARED / "data" / "nbi-real", nbi_held_back=0.33)
    fitted = dict(zip(found.argument, found.fitted, strict=True))
    for name, default in DEFAULTS.items():
        assert fitted[name] == pytest.approx(list(default) if isinstance(default, tuple) else default, abs=0.02), name
