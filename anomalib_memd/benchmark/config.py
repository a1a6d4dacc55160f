"""The configuration of a benchmark: data sets, methods, seeds."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from anomalib_memd.modality import Modality

FOLDERS = ("root", "nbi_root", "unpaired_nbi_root")
"""Arguments of a datamodule that are folders."""


class BenchmarkConfigError(ValueError):
    """A configuration of a benchmark that cannot be understood."""


@dataclass(frozen=True)
class Method:
    """One method of a benchmark.

    Args:
        name: What tables call it.
        class_path: An anomalib model, by name.
        init_args: Its arguments.
        paired: Whether it trains on pairs and tests both modalities; otherwise each modality is a job.
        group: Heading under which an ablation lists it.
        seeds: Seeds, if other than those of the benchmark.
        max_epochs: Number of epochs, for a model that does not set them itself.
        max_time: Wall-clock limit of the training in seconds; ``None`` for none.
        select_best: Whether the epoch with the best image AUROC on validation is tested, instead of the last.
        weights: A timm model whose weights its backbone takes, for a model that knows architectures but no weights.
        teacher_of: Name of a paired method whose teacher is taken, of the same data set and seed.
        cross: Whether it is tested on the other data sets too, where the benchmark does that.
        modality: For a method that is not paired, the one modality it is run on; ``None`` for both.
        data_args: Arguments of the datamodule that this method changes.
        order: Place in the tables.
    """

    name: str
    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    paired: bool = False
    group: str = ""
    seeds: tuple[int, ...] | None = None
    max_epochs: int | None = None
    max_time: float | None = None
    select_best: bool = False
    weights: str | None = None
    teacher_of: str | None = None
    cross: bool = True
    modality: str | None = None
    data_args: dict[str, Any] = field(default_factory=dict)
    order: int = 0


@dataclass(frozen=True)
class BenchmarkConfig:
    """A whole benchmark.

    Args:
        datasets: Datamodule (``class_path``, ``init_args``) of each data set, and if it has its own, ``max_time``.
        methods: Methods, in the order of the tables.
        seeds: Seeds of every method that does not name its own.
        cross: Whether trained models are tested on the other data sets too.
        latency: Whether latency, number of parameters and size are measured, in the first job of each method.
        max_time: Wall-clock limit of training, in seconds, of every method with ``max_epochs``.
        accelerator: ``cpu`` or ``cuda``.
    """

    datasets: dict[str, dict[str, Any]]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...] = (0,)
    cross: bool = False
    latency: bool = True
    max_time: float | None = None
    accelerator: str = "cpu"


def load_config(
    path: str | Path,
    root: str | Path | None = None,
    quick: bool = False,
    methods: list[str] | None = None,
    datasets: list[str] | None = None,
    seeds: list[int] | None = None,
) -> BenchmarkConfig:
    """Read a configuration.

    Args:
        path: YAML file.
        root: Folder of the data sets, to which their :data:`FOLDERS` are relative.
        quick: Whether the section ``quick`` of the file replaces what it names.
        methods: Names of the methods to keep, and with them those whose teachers they take; all if ``None``.
        datasets: Names of the data sets to keep; all if ``None``.
        seeds: Seeds instead of those of the file.

    Returns:
        Configuration.

    Raises:
        BenchmarkConfigError: If the file cannot be read, or names something that does not exist.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        msg = f"{path}: no readable configuration of a benchmark ({error})."
        raise BenchmarkConfigError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: a configuration of a benchmark is a mapping with 'datasets' and 'methods'."
        raise BenchmarkConfigError(msg)
    shortened = content.pop("quick", None)
    if quick:
        if shortened is None:
            msg = f"{path} has no section 'quick'; leave out --quick."
            raise BenchmarkConfigError(msg)
        content = _merge(content, shortened)
        if "methods" in shortened:
            content["methods"] = {name: content["methods"][name] for name in shortened["methods"]}
    content["datasets"] = {
        name: _at_root(data, root) for name, data in _selected(content, "datasets", datasets, path).items()
    }
    places = {name: place for place, name in enumerate(content.get("methods") or {})}
    content["methods"] = tuple(
        _build(Method, {"name": name, "order": places[name]} | options, path)
        for name, options in _selected(content, "methods", methods, path).items()
    )
    if seeds is not None:
        content["seeds"] = seeds
        content["methods"] = tuple(Method(**vars(m) | {"seeds": None}) for m in content["methods"])
    config = _build(BenchmarkConfig, content, path)
    before: set[str] = set()
    for method in config.methods:
        if method.teacher_of is not None and method.teacher_of not in before:
            msg = (
                f"{path}: {method.name} takes the teacher of {method.teacher_of}, which is not among the methods "
                f"before it."
            )
            raise BenchmarkConfigError(msg)
        before.add(method.name)
        if method.modality is not None and method.modality not in set(Modality):
            msg = f"{path}: {method.name} has modality {method.modality}; it can be wli or nbi."
            raise BenchmarkConfigError(msg)
    return config


def _selected(content: dict[str, Any], section: str, names: list[str] | None, path: Path) -> dict[str, Any]:
    present = content.get(section)
    if not isinstance(present, dict) or not present:
        msg = f"{path}: the section '{section}' is missing or empty."
        raise BenchmarkConfigError(msg)
    unknown = [name for name in names or [] if name not in present]
    if unknown:
        msg = f"{path} has no {section} {', '.join(unknown)}; it has {', '.join(present)}."
        raise BenchmarkConfigError(msg)
    chosen = list(names or present)
    for name in chosen:  # It grows by those whose teachers are taken.
        teacher = (present[name] or {}).get("teacher_of")
        if teacher in present and teacher not in chosen:
            chosen.append(teacher)
    return {name: value or {} for name, value in present.items() if name in chosen}


def _build(cls: type, options: dict[str, Any], path: Path) -> Any:
    known = {f.name for f in fields(cls)}
    unknown = [name for name in options if name not in known]
    if unknown:
        msg = f"{path}: unknown option {', '.join(unknown)}; a {cls.__name__} knows {', '.join(sorted(known))}."
        raise BenchmarkConfigError(msg)
    if isinstance(options.get("seeds"), list):
        options = options | {"seeds": tuple(options["seeds"])}
    try:
        return cls(**options)
    except TypeError as error:
        msg = f"{path}: {options.get('name', cls.__name__)}: {error}."
        raise BenchmarkConfigError(msg) from error


def _at_root(data: dict[str, Any], root: str | Path | None) -> dict[str, Any]:
    data = copy.deepcopy(data)
    options = data.get("init_args", {})
    for name in FOLDERS:
        if root is not None and options.get(name) is not None:
            options[name] = str(Path(root) / options[name])
    return data


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what ``change`` names, in depth; of data sets it names all that there are."""
    merged = dict(base)
    for key, value in change.items():
        deep = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "datasets"
        merged[key] = _merge(merged[key], value) if deep else value
    return merged
