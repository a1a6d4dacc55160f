"""The command that writes the configurations."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import pandas as pd

import anomalib_memd
from anomalib_memd.files import written_whole


def configs(output: Path = Path("configs"), overwrite: bool = False) -> pd.DataFrame:
    """Write the configurations of this package into a folder, one file a purpose.

    Args:
        output: Folder; it is made if needed.
        overwrite: Replace files that are there and differ.

    Returns:
        The files.

    Raises:
        FileExistsError: If a file is there and differs; then nothing is written.
    """
    sources = {
        file.name: file.read_text(encoding="utf-8") for file in _folder().iterdir() if file.name.endswith("yaml")
    }
    for name, text in sources.items():
        target = output / name
        if target.exists() and not overwrite and target.read_text(encoding="utf-8") != text:
            msg = f"{target} is there and differs; give another --output, or --overwrite."
            raise FileExistsError(msg)
    for name, text in sources.items():
        with written_whole(output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return pd.DataFrame({"file": [str(output / name) for name in sorted(sources)]})


def _folder() -> Traversable:
    """Where they are: inside the installed package, or beside it in a clone of the repository."""
    try:
        return files("anomalib_memd.configs")
    except ModuleNotFoundError:
        return Path(anomalib_memd.__file__).parents[1] / "configs"
