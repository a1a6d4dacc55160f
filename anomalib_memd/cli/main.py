"""The console script ``anomalib-memd``: what anomalib's own command line has no place for."""

import inspect
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from jsonargparse import ActionYesNo, ArgumentParser
from lightning.pytorch.cli import LightningCLI

from anomalib_memd import UnpairedImages, WtNGAN
from anomalib_memd.adaptation import adapt
from anomalib_memd.inference.app import app
from anomalib_memd.inference.score import score
from anomalib_memd.inference.video import video
from anomalib_memd.memory import keep_freed_memory
from anomalib_memd.translation.comparison import compare_translations
from anomalib_memd.translation.fitting import fit_spectral
from anomalib_memd.translation.translate import translate

from .ablate import ablate
from .anomalib import PASSED_ON, pass_on
from .benchmark import benchmark
from .check import check
from .configs import configs
from .doctor import doctor
from .export import export
from .quiet import keep_quiet
from .report import report

COMMANDS = {
    command.__name__.replace("_", "-"): command
    for command in (
        configs,
        doctor,
        benchmark,
        ablate,
        report,
        check,
        adapt,
        export,
        score,
        video,
        app,
        translate,
        fit_spectral,
        compare_translations,
    )
}


def main(arguments: list[str] | None = None) -> None:
    """Run a command; errors of the user end it with their message.

    Args:
        arguments: Command line; that of the process if ``None``.
    """
    keep_freed_memory()
    keep_quiet()
    arguments = sys.argv[1:] if arguments is None else arguments
    if set(arguments[:1]) & set(PASSED_ON):
        try:
            pass_on(arguments)
        except (ValueError, OSError, RuntimeError) as error:
            _end(error)
        return
    if arguments[:1] == ["wtngan"]:
        LightningCLI(WtNGAN, UnpairedImages, args=arguments[1:])
        return
    parser = ArgumentParser(
        prog="anomalib-memd",
        description="Score, adapt, export and measure MEMD; look after its data. "
        "'anomalib-memd train', 'test' and 'predict' are those of anomalib, with --seed. "
        "'anomalib-memd wtngan' is the Lightning command line that trains the learned translation.",
    )
    subcommands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        summary = inspect.getdoc(command).split("\n\n", maxsplit=1)[0]
        own = ArgumentParser(description=summary)
        switches = [p for p in inspect.signature(command).parameters.values() if p.annotation is bool]
        own.add_function_arguments(command, skip={switch.name for switch in switches}, sub_configs=True)
        for switch in switches:
            own.add_argument(
                f"--{switch.name}",
                action=ActionYesNo(no_prefix=None),
                default=switch.default,
                help=_help(command, switch.name),
            )
        subcommands.add_subcommand(name, own, help=summary)
    chosen = parser.parse_args(arguments)
    try:
        chosen = parser.instantiate_classes(chosen)
        result = COMMANDS[chosen.subcommand](**chosen[chosen.subcommand])
        if result is not None:
            print(result.to_string(index=False))  # noqa: T201
    except (ValueError, OSError, RuntimeError) as error:
        _end(error)


def _end(error: Exception) -> NoReturn:
    """End with the message of an error."""
    way_out = ""
    if str(error).startswith("DataLoader worker"):
        way_out = " Systems end processes where memory runs out: lower num_workers, or the size of batches."
    sys.exit(f"anomalib-memd: {error}{way_out}")


def _help(command: Callable, argument: str) -> str:
    """What the docstring of a command says of an argument."""
    found = re.search(rf"^\s*{argument}: (.+)$", inspect.getdoc(command) or "", re.MULTILINE)
    return found.group(1) if found else ""
