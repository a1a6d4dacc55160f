"""What travels with an exported model."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from anomalib_memd.modality import Branch


class ModelFileError(ValueError):
    """A file that holds no exported model of this package."""


class UntrustedFileError(ModelFileError):
    """A file that could run code when it is read, which nobody has allowed."""


@dataclass(frozen=True)
class Metadata:
    """Facts about an exported detector.

    Args:
        branch: Which detector it is: the student of a modality, or the teacher on pairs.
        classes: Normal classes that it was trained on.
        threshold: Normalised score from which an image is called abnormal.
        raw_threshold: The same before normalisation, in log odds.
        image_size: Height and width that the backbone sees, in pixels.
        version: Version of this package that exported it.
        checkpoint: SHA-256 of the checkpoint; empty for a model that was not loaded from one.
    """

    branch: Branch
    classes: tuple[str, ...]
    threshold: float
    raw_threshold: float
    image_size: tuple[int, int]
    version: str
    checkpoint: str = ""

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """From what :meth:`to_json` gave.

        Raises:
            ValueError: If a field is missing, or of another kind.
            TypeError: Likewise.
        """
        content = json.loads(text)
        missing = [field.name for field in fields(cls) if field.name not in content]
        if missing:
            msg = f"no {missing[0]}"
            raise ValueError(msg)
        classes, size = content["classes"], content["image_size"]
        words = [*classes, content["version"], content["checkpoint"]]
        sides = [type(side) is int and side > 0 for side in size]
        if not all(isinstance(word, str) for word in words) or len(size) not in {0, 2} or not all(sides):
            msg = f"classes={classes} and image_size={size} are not of this format"
            raise ValueError(msg)
        numbers = {name: float(content[name]) for name in ("threshold", "raw_threshold")}
        return cls(
            **content
            | numbers
            | {"branch": Branch(content["branch"]), "classes": tuple(classes), "image_size": tuple(size)}
        )


KEY = "memd"
"""Name of the entry in each kind of file."""
EXTRA_FILE = f"{KEY}.json"
"""The same in archives of TorchScript and ``torch.export``."""


def write_metadata(path: Path, metadata: Metadata) -> None:
    """Add metadata to an exported ONNX model or OpenVINO IR; other formats take theirs when they are written.

    Args:
        path: The ``.onnx`` or ``.xml`` file.
        metadata: The metadata.
    """
    if path.suffix == ".onnx":
        import onnx  # noqa: PLC0415  an extra

        model = onnx.load(path, load_external_data=False)
        onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
        onnx.save(model, path)
    elif path.suffix == ".xml":
        import openvino  # noqa: PLC0415  an extra

        model = openvino.Core().read_model(path)
        model.set_rt_info(metadata.to_json(), ["model_info", KEY])
        # The weights are mapped from the file that is to be replaced.
        openvino.save_model(model, path.with_stem("with-metadata"), compress_to_fp16=False)
        for suffix in (".xml", ".bin"):
            path.with_name("with-metadata" + suffix).replace(path.with_suffix(suffix))


def read_metadata(path: str | Path) -> Metadata:
    """Read the metadata of an exported model.

    Args:
        path: ``.xml`` (OpenVINO), ``.onnx``, ``.ts`` (TorchScript), ``.pt2`` (``torch.export``) or ``.pt``, see
            :func:`read_pickled`.

    Returns:
        The metadata.

    Raises:
        ModelFileError: If the file cannot be read, or has none.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], str]] = {
        ".xml": _read_openvino,
        ".onnx": _read_onnx,
        ".ts": _read_torchscript,
        ".pt2": _read_torch_export,
        ".pt": lambda file: read_pickled(file)[KEY],
    }
    if path.suffix not in readers or not path.is_file():
        msg = f"{path}: no such exported model; give a file that ends in {', '.join(readers)}."
        raise ModelFileError(msg)
    try:
        return Metadata.from_json(readers[path.suffix](path))
    except UntrustedFileError:
        raise
    except Exception as error:
        msg = f"{path}: no model that MEMD has exported, or a damaged one ({type(error).__name__}: {error})."
        raise ModelFileError(msg) from error


def read_pickled(path: Path) -> dict[str, Any]:
    """Content of a ``.pt`` file, as :class:`~anomalib.deploy.TorchInferencer` takes it.

    It is unpickled, which runs whatever code it brings, so it is read only where ``TRUST_REMOTE_CODE`` is 1.

    Raises:
        UntrustedFileError: If that has not been allowed.
    """
    if os.environ.get("TRUST_REMOTE_CODE", "0").lower() not in {"1", "true"}:
        msg = (
            f"{path}: a .pt file can run code when it is read. Export as .ts, .pt2, .onnx or .xml instead, or set the "
            f"environment variable TRUST_REMOTE_CODE=1 if you trust the file."
        )
        raise UntrustedFileError(msg)
    return torch.load(path, "cpu", weights_only=False)


def _read_openvino(path: Path) -> str:
    import openvino  # noqa: PLC0415  an extra

    return openvino.Core().read_model(path).get_rt_info(["model_info", KEY]).astype(str)


def _read_onnx(path: Path) -> str:
    import onnx  # noqa: PLC0415  an extra

    return {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}[KEY]


def _read_torchscript(path: Path) -> str:
    extra: dict[str, Any] = {EXTRA_FILE: ""}
    torch.jit.load(path, "cpu", _extra_files=extra)
    return extra[EXTRA_FILE]


def _read_torch_export(path: Path) -> str:
    extra: dict[str, Any] = {EXTRA_FILE: ""}
    torch.export.load(path, extra_files=extra)
    return extra[EXTRA_FILE]
