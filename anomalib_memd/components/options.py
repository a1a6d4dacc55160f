"""Options in groups: dataclasses that configurations and checkpoints give as mappings."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args


@dataclass(frozen=True)
class Range:
    """What a number may be.

    Args:
        low: The least.
        high: The largest.
        above: Whether it has to be above the least.
    """

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"


ABOVE_0, AT_LEAST_0, AT_LEAST_1, SHARE = Range(0, above=True), Range(0), Range(1), Range(0, 1)


class Options:
    """A group of options, a frozen dataclass that takes choices by their names, and lists for tuples.

    Attributes:
        ranges: What numbers may be, by the names of options; ``None`` is let through.

    Raises:
        ValueError: If a number is out of its range, or a choice is none of those that there are.
    """

    ranges: ClassVar[Mapping[str, Range]] = {}

    def __post_init__(self) -> None:
        for name, allowed in self.ranges.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                msg = f"{name} is {allowed}, got {value}."
                raise ValueError(msg)
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            # 'Choice | str', since the command line takes choices of a plain 'Choice' by the names of its members.
            for kind in get_args(field.type):
                if isinstance(kind, type) and issubclass(kind, Enum):
                    value = kind(value)
            object.__setattr__(self, field.name, tuple(value) if isinstance(value, list) else value)


Group = TypeVar("Group", bound=Options)


def group(kind: type[Group], given: Group | Mapping[str, Any]) -> Group:
    """A group of options, which a checkpoint or a configuration of a benchmark gives as a mapping.

    Args:
        kind: The group.
        given: The group itself, or some of its options by name.

    Raises:
        ValueError: If there is no option of a name, or a value is none of those that can be chosen.
    """
    if isinstance(given, kind):
        return given
    values = dict(given)  # type: ignore[call-overload]
    known = [field.name for field in fields(kind)]
    unknown = [name for name in values if name not in known]
    if unknown:
        msg = f"{kind.__name__} has no option {', '.join(unknown)}; it has {', '.join(known)}."
        raise ValueError(msg)
    return kind(**values)


def plain(given: Any) -> Any:
    """A value as plain data, groups as mappings: what a checkpoint holds, and what can be compared."""
    if is_dataclass(given) and not isinstance(given, type):
        return {name: plain(value) for name, value in asdict(given).items()}
    if isinstance(given, Enum):
        return given.value
    if isinstance(given, Path):
        return str(given)
    return list(given) if isinstance(given, tuple) else given
