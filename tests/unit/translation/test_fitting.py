"""Coefficients of the closed-form translation are found again in what it has translated."""

import torch

from anomalib_memd import SpectralNBI
from anomalib_memd.cli import main
from anomalib_memd.translation.fitting import match_distribution


def test_colours_come_close_to_those_of_another_processor():
    random = torch.Generator().manual_seed(0)
    wli = torch.rand(2000, 3, generator=random) * torch.tensor([0.4, 0.3, 0.3]) + torch.tensor([0.5, 0.3, 0.2])
    other = SpectralNBI((0, 0.5, 0.5), (0.3, 0.7, 0), 0.2, 0.2, (1.2, 1.8, 1.2), curve=1.3)
    nbi = other(wli.T[:, :, None])[:, :, 0].T
    before, after = match_distribution(wli, nbi, 200, random)
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
