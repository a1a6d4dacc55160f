"""The configuration of a benchmark: data sets, methods, seeds."""

import copy
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from anomalib_memd.components.options import AT_LEAST_0
from anomalib_memd.files import read_yaml
from anomalib_memd.modality import Modality

ACCELERATORS = ("cpu", "cuda")
FOLDERS = ("root", "nbi_root", "unpaired_nbi_root")
"""Arguments of a datamodule that are folders."""
PRECISIONS = ("32-true", "bf16-mixed")
"""What a method can be trained in, as Lightning names it."""


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
        group: Family, the heading under which tables list it. Methods of MEMD's own are its variants.
        seeds: Seeds, if other than those of the benchmark.
        learns: Whether it learns by gradient descent, so that its training ends when its loss on held-back images no
            longer falls, or when its time is over.
        max_epochs: Number of epochs, for a model that does not set them itself.
        max_time: Wall-clock limit of the training, if other than that of the benchmark.
        precision: One of :data:`PRECISIONS`. It is trained so; its held-back loss and its scores have 32 bits.
        weights: A timm model whose weights its backbone takes, for a model that knows architectures but no weights.
        teacher_of: Name of a paired method whose teacher is taken, of the same data set and seed.
        cross: Whether it is tested on the other data sets too, where the benchmark does that.
        modality: For a method that is not paired, the one modality it is run on; ``None`` for both.
        data_args: Arguments of the datamodule that this method changes.
        datasets: Names of the data sets that it is run on; all if ``None``.
        order: Place in the tables.
    """

    name: str
    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    paired: bool = False
    group: str = ""
    seeds: tuple[int, ...] | None = None
    learns: bool = False
    max_epochs: int | None = None
    max_time: float | str | None = None
    precision: str = PRECISIONS[0]
    weights: str | None = None
    teacher_of: str | None = None
    cross: bool = True
    modality: str | None = None
    data_args: dict[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] | None = None
    order: int = 0


@dataclass(frozen=True)
class BenchmarkConfig:
    """A whole benchmark.

    Args:
        datasets: Datamodule (``class_path``, ``init_args``) of each data set; if it has them, its own ``max_time``, and
            as ``development`` the arguments of a datamodule with the same training images, whose ``test`` has been
            looked at and serves to choose by.
        methods: Methods, in the order of the tables.
        seeds: Seeds of every method that does not name its own.
        cross: Whether trained models are tested on the other data sets too, or the data sets that take part in that.
        latency: Whether latency, number of parameters and size are measured, in the first job of each method.
        max_time: Wall-clock limit of training of every method that ``learns``: seconds, or the name of a method
            that comes before, to train for as long as that took on the same data set, a modality.
        accelerator: ``cpu`` or ``cuda``.
        repeats: Folder of an earlier run of this benchmark. Instead of the limits in time, every method that
            ``learns`` then trains for as many batches as it did there.
        test_log: Markdown file that keeps a table of when and why test images were opened.
    """

    datasets: dict[str, dict[str, Any]]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...] = (0,)
    cross: bool | list[str] = False
    latency: bool = True
    max_time: float | str | None = None
    accelerator: str = "cpu"
    repeats: str | None = None
    test_log: str = "docs/benchmark.md"

    def time_limit(self, method: Method, dataset: str) -> float | str | None:
        """Limit of the training of a method, see ``max_time``; ``None`` where there is none."""
        if not method.learns or self.repeats is not None:
            return None
        return method.max_time or self.datasets[dataset].get("max_time", self.max_time)

    def tested_on(self, method: Method, dataset: str) -> list[str]:
        """Names of the data sets that a method is tested on when it has been trained on one, which comes first."""
        taking_part = self.cross if isinstance(self.cross, list) else list(self.datasets) * self.cross
        if not method.cross or dataset not in taking_part:
            return [dataset]
        return [dataset, *(other for other in self.datasets if other in taking_part and other != dataset)]

    def needed_by(self, method: Method) -> set[str]:
        """Names of the methods that have to be finished before one can run."""
        limits = {self.time_limit(method, dataset) for dataset in self.datasets}
        return {name for name in limits | {method.teacher_of} if isinstance(name, str)}


def load_config(
    path: str | Path,
    root: str | Path | None = None,
    quick: bool = False,
    methods: list[str] | None = None,
    datasets: list[str] | None = None,
    seeds: list[int] | None = None,
    repeats: str | Path | None = None,
) -> BenchmarkConfig:
    """Read a configuration.

    Args:
        path: YAML file.
        root: Folder of the data sets, to which their :data:`FOLDERS` are relative.
        quick: Whether the section ``quick`` of the file replaces what it names.
        methods: Names of the methods to keep, and with them those that they need; all if ``None``.
        datasets: Names of the data sets to keep; all if ``None``.
        seeds: Seeds instead of those of the file.
        repeats: Folder of an earlier run whose numbers of batches replace limits in time, see ``BenchmarkConfig``.

    Returns:
        Configuration.

    Raises:
        BenchmarkConfigError: If the file cannot be read, or names something that does not exist.
    """
    path = Path(path)
    content = read_yaml(path, "configuration of a benchmark", BenchmarkConfigError)
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
    _require_mappings(content, path)
    known = list(content["datasets"]) if isinstance(content.get("datasets"), dict) else []
    content["datasets"] = {
        name: _at_root(data, root) for name, data in _selected(content, "datasets", datasets, path).items()
    }
    if repeats is not None:
        if not (Path(repeats) / "runs").is_dir():
            msg = f"{repeats} is no folder of a benchmark: it has no folder 'runs'."
            raise BenchmarkConfigError(msg)
        content["repeats"] = str(repeats)
    wanted = set(_selected(content, "methods", methods, path))
    content["methods"] = tuple(
        _build(Method, {"name": name, "order": place} | (options or {}), path)
        for place, (name, options) in enumerate(content["methods"].items())
    )
    config: BenchmarkConfig = _build(BenchmarkConfig, content, path)
    unknown = set(config.cross) - set(known) if isinstance(config.cross, list) else set()
    if unknown:
        msg = f"{path}: 'cross' names {', '.join(sorted(unknown))}; the data sets are {', '.join(known)}."
        raise BenchmarkConfigError(msg)
    _check_values(config, path)
    _check_methods(config, path, set(known))
    for method in reversed(config.methods):
        if method.name in wanted:
            wanted |= config.needed_by(method)
    chosen = tuple(method for method in config.methods if method.name in wanted)
    if seeds is None:
        return replace(config, methods=chosen)
    return replace(config, methods=tuple(replace(method, seeds=None) for method in chosen), seeds=tuple(seeds))


def _require_mappings(content: dict[str, Any], path: Path) -> None:
    """Refuse data sets and methods that are no mappings, or whose arguments are none."""
    for section in ("datasets", "methods"):
        present = content.get(section)
        for name, options in present.items() if isinstance(present, dict) else ():
            parts = {"": options} | {
                f" {key}": options.get(key) or {}
                for key in ("init_args", "data_args", "development")
                if isinstance(options, dict)
            }
            for key, part in parts.items():
                if part is not None and not isinstance(part, dict):
                    msg = f"{path}:{key} of {name} in '{section}' is a mapping, got {part!r}."
                    raise BenchmarkConfigError(msg)


def _check_values(config: BenchmarkConfig, path: Path) -> None:
    """Refuse seeds, times and processors that there are not."""
    if config.accelerator not in ACCELERATORS:
        msg = f"{path}: accelerator is {' or '.join(ACCELERATORS)}, got {config.accelerator!r}."
        raise BenchmarkConfigError(msg)
    for owner, seeds in [("", config.seeds), *((f" of {m.name}", m.seeds or ()) for m in config.methods)]:
        if not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
            msg = f"{path}: seeds{owner} are whole numbers of at least 0, got {list(seeds)}."
            raise BenchmarkConfigError(msg)
    times = [("", config.max_time), *((f" of {m.name}", m.max_time) for m in config.methods)]
    for owner, limit in times + [(f" of {name}", data.get("max_time")) for name, data in config.datasets.items()]:
        if limit is not None and not isinstance(limit, str) and limit not in AT_LEAST_0:
            msg = f"{path}: max_time{owner} is a number of seconds or the name of a method, got {limit!r}."
            raise BenchmarkConfigError(msg)


def _check_methods(config: BenchmarkConfig, path: Path, known: AbstractSet[str]) -> None:
    before: set[str] = set()
    for method in config.methods:
        absent = config.needed_by(method) - before
        if absent:
            msg = f"{path}: {method.name} needs {absent.pop()}, which is not among the methods before it."
            raise BenchmarkConfigError(msg)
        before.add(method.name)
        if method.modality is not None and method.modality not in set(Modality):
            msg = f"{path}: {method.name} has modality {method.modality}; it can be wli or nbi."
            raise BenchmarkConfigError(msg)
        if method.precision not in PRECISIONS:
            msg = f"{path}: {method.name} has precision {method.precision!r}; it can be {' or '.join(PRECISIONS)}."
            raise BenchmarkConfigError(msg)
        unknown = set(method.datasets or ()) - known
        if unknown:
            msg = f"{path}: {method.name} is run on {', '.join(sorted(unknown))}; the data sets are {', '.join(known)}."
            raise BenchmarkConfigError(msg)


def _selected(content: dict[str, Any], section: str, names: list[str] | None, path: Path) -> dict[str, Any]:
    present = content.get(section)
    if not isinstance(present, dict) or not present:
        msg = f"{path}: the section '{section}' is missing or empty."
        raise BenchmarkConfigError(msg)
    unknown = [name for name in names or [] if name not in present]
    if unknown:
        msg = f"{path} has no {section} {', '.join(unknown)}; it has {', '.join(present)}."
        raise BenchmarkConfigError(msg)
    return {name: value or {} for name, value in present.items() if not names or name in names}


def _build(cls: type, options: dict[str, Any], path: Path) -> Any:
    known = {f.name for f in fields(cls)}
    unknown = [name for name in options if name not in known]
    if unknown:
        msg = f"{path}: unknown option {', '.join(unknown)}; a {cls.__name__} knows {', '.join(sorted(known))}."
        raise BenchmarkConfigError(msg)
    for name in ("seeds", "datasets"):
        if isinstance(options.get(name), list):
            options = options | {name: tuple(options[name])}
    try:
        return cls(**options)
    except TypeError as error:
        msg = f"{path}: {options.get('name', cls.__name__)}: {error}."
        raise BenchmarkConfigError(msg) from error


def _at_root(data: dict[str, Any], root: str | Path | None) -> dict[str, Any]:
    data = copy.deepcopy(data)
    for options in (data.get("init_args", {}), data.get("development", {})):
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
