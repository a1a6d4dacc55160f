"""Print what the package needs at run time, extras included, as 'name==version', one a line."""

from importlib.metadata import distribution

from packaging.requirements import Requirement

PACKAGE = "anomalib-memd"
EXTRAS = ("app", "demo", "dicom", "language", "openvino", "parquet", "ray", "sam", "video")


def pins() -> list[str]:
    """The whole tree of dependencies, as it is installed."""
    found: dict[str, str] = {}
    waiting = [(PACKAGE, frozenset(EXTRAS))]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        package = distribution(name)
        if name != PACKAGE:
            found[package.metadata["Name"]] = package.version
        for text in package.requires or ():
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                waiting.append((needed.name, frozenset(needed.extras)))
    return sorted(f"{name}=={version}" for name, version in found.items())


if __name__ == "__main__":
    print("\n".join(pins()))  # noqa: T201
