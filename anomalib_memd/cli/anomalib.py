"""The commands of anomalib itself, with a seed that is applied and without the notices of other libraries."""

import sys

from anomalib.cli.cli import main as anomalib_main
from lightning.pytorch import seed_everything

PASSED_ON = ("train", "fit", "validate", "test", "predict")


def pass_on(arguments: list[str]) -> None:
    """Run a command of anomalib.

    Args:
        arguments: Its command line. ``--seed N`` is taken out of it, and applied to all random draws and to the
            processes that read data.

    Raises:
        ValueError: If the seed is no whole number of at least 0.
    """
    rest, seed = [], None
    values = iter(arguments)
    for value in values:
        name, equals, given = value.partition("=")
        if name == "--seed":
            seed = given if equals else next(values, "")
        else:
            rest.append(value)
    if seed is not None:
        if not seed.isdecimal():
            msg = f"--seed takes a whole number of at least 0, got '{seed}'."
            raise ValueError(msg)
        seed_everything(int(seed), workers=True)
    sys.argv[1:] = rest
    anomalib_main()
