"""Checkpoints that say what they hold, and what a user has asked for beside them."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from anomalib.utils.serialization import anomalib_safe_globals
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn

from anomalib_memd.version import __version__

COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")
"""anomalib's components, which are no options of a checkpoint."""

VERSION_KEY = "memd_version"
"""Where a checkpoint names the version of this package that wrote it."""


OLD_CHOICES = [
    (str, f"anomalib_memd.{name}")
    for name in (
        "modality.Modality",
        "models.memd.torch_model.Fusion",
        "models.memd.torch_model.Distillation",
        "models.memd.branches.Evidence",
        "models.memd.masked_attention.EnergyForm",
        "models.memd.synthesis.SynthesisKind",
        "models.memd.loss.GlobalDistance",
        "models.memd.loss.KLDirection",
    )
]
"""What options were in checkpoints of version 0.1. They are read as text, only to say what they are."""


def read_checkpoint(path: Path | str, safe_globals: Sequence[Any] = ()) -> dict[str, Any]:
    """Read a checkpoint without running code of it.

    Args:
        path: The file.
        safe_globals: Classes that it may hold beside those of anomalib.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no readable checkpoint.
    """
    if not Path(path).is_file():
        msg = f"{path}: no such checkpoint."
        raise FileNotFoundError(msg)
    try:
        with anomalib_safe_globals(extra=[*OLD_CHOICES, *safe_globals]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        content["state_dict"], content["hyper_parameters"]
    except Exception as error:
        msg = f"{path}: no readable checkpoint of MEMD ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    return content


def require_version(content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of a version whose options this one does not know.

    Raises:
        ValueError: If the checkpoint is older than version 0.5.
    """
    version = content.get(VERSION_KEY, "0.1")
    if version in {"0.1", "0.2.0", "0.3.0", "0.4.0"}:
        msg = (
            f"This checkpoint was written by anomalib-memd {version}, which judged by other evidence: read it with "
            f"anomalib-memd {version}, or train again."
        )
        raise ValueError(msg)


def load_parts(model: nn.Module, path: Path, prefixes: tuple[str, ...]) -> None:
    """Load some parts of the model of another run.

    Args:
        model: The model that takes them; in the checkpoint its name is ``model``.
        path: The checkpoint.
        prefixes: What the names of the parts begin with.

    Raises:
        ValueError: If the file is missing, unreadable, or holds another architecture.
    """
    try:
        state = read_checkpoint(path)["state_dict"]
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    own = {key: value for key, value in model.state_dict().items() if key.startswith(prefixes)}
    given = {key.removeprefix("model."): value for key, value in state.items()}
    fixed = {key for key in own if not key.endswith(".bank")}  # Banks take the size of what is loaded.
    wrong = [key for key in own if key not in given or (key in fixed and given[key].shape != own[key].shape)]
    if wrong:
        msg = (
            f"{path} does not fit this model: {wrong[0]} is missing or of another shape ({len(wrong)} such); give "
            f"the same backbone, layers, width and fusion as it was trained with."
        )
        raise ValueError(msg)
    model.load_state_dict({key: given[key] for key in own}, strict=False)


def flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of groups under names with a dot, such as ``encoder.width``."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in flat(value).items()}
        else:
            found[name] = value
    return found


def differing(options: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The options, by flat names, that others have too, with another value."""
    known = flat(others)
    return {name: value for name, value in flat(options).items() if name in known and known[name] != value}


def defaults(kind: type) -> dict[str, Any]:
    """The defaults of a class by the names of its arguments."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


class SelfDescribingMixin:
    """A model whose checkpoints say how it is built, so that nobody has to say it again.

    A subclass lists its :attr:`shaping` options and has :meth:`rebuild`. It calls :meth:`remember_given` at the end of
    its ``__init__``.
    """

    shaping: ClassVar[tuple[str, ...]] = ()
    """Options, by flat names or by their groups, on which the shape or the judgement of the model depends."""
    given: ClassVar[dict[str, Any]] = {}
    """Options by flat names that differ from their defaults; those of the instance that was made last of this class."""

    @classmethod
    def checkpoint_safe_globals(cls) -> Sequence[Any]:
        """What a checkpoint of an older version holds; those of this version hold plain data alone."""
        return OLD_CHOICES

    def rebuild(self, options: Mapping[str, Any]) -> None:
        """Build the model anew from options that a checkpoint holds; weights follow."""
        raise NotImplementedError

    @classmethod
    def plain_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as plain data, groups as mappings."""
        raise NotImplementedError

    def remember_given(self) -> None:
        """Keep what the user asked for in the class of the instance.

        anomalib's export loads the checkpoint by the class of its model alone.
        """
        own = flat(self.plain_options(self.hparams))
        usual = flat(self.plain_options(defaults(type(self))))
        given = {name: value for name, value in own.items() if name in usual and usual[name] != value}
        self.__class__ = _remembering(type(self), given)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by the class that a module has, and by what it remembers."""
        del protocol
        return _blank, (type(self).__bases__[0], type(self).given), self.__dict__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become the model that the checkpoint describes.

        Raises:
            ValueError: If the user has asked for another.
        """
        require_version(checkpoint)
        stored = self.plain_options(checkpoint["hyper_parameters"])
        self.require_same(type(self).given, stored)
        other = self._shaping_only(differing(stored, self.plain_options(self.hparams)))
        if other:
            if self._trainer is not None:
                named = ", ".join(f"{name}={value}" for name, value in other.items())
                rank_zero_info(f"As in the checkpoint: {named}.")
            self.rebuild(stored)
        super().on_load_checkpoint(checkpoint)
        datamodule = getattr(self._trainer, "datamodule", None)
        if other and hasattr(datamodule, "_update_augmentations"):
            datamodule._update_augmentations()  # noqa: SLF001  it resizes to what the model sees

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the options as plain data, and the version."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["hyper_parameters"] = self.plain_options(checkpoint["hyper_parameters"])
        checkpoint[VERSION_KEY] = __version__

    @classmethod
    def require_same(cls, given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
        """Refuse options of the user that contradict those of a checkpoint.

        Raises:
            ValueError: Naming each, with both values.
        """
        wrong = cls._shaping_only(differing(given, stored))
        if wrong:
            known = flat(stored)
            each = ", ".join(f"{name}={value}, but the checkpoint has {known[name]}" for name, value in wrong.items())
            msg = f"Given was {each}. A checkpoint knows its options: leave these out, or give another checkpoint."
            raise ValueError(msg)

    @classmethod
    def _shaping_only(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        return {n: v for n, v in options.items() if n in cls.shaping or n.split(".", maxsplit=1)[0] in cls.shaping}


def _remembering(kind: type, given: dict[str, Any]) -> type:
    """A class that remembers options; of one that remembers already, a sibling."""
    base = kind.__bases__[0] if "given" in vars(kind) and "shaping" not in vars(kind) else kind
    same = {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(base.__name__, (base,), {**same, "given": given})


def _blank(kind: type, given: dict[str, Any]) -> Any:
    made: Any = _remembering(kind, given)
    return made.__new__(made)
