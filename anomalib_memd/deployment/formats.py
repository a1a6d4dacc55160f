"""The files that a detector is exported to."""

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec
from unittest.mock import patch

import torch
from anomalib.data import AnomalibDataModule, InferenceBatch
from anomalib.models.components.base.export_mixin import ExportMixin
from torch import nn

from anomalib_memd.files import workspace
from anomalib_memd.modality import Modality

from .metadata import EXTRA_FILE, KEY, Metadata
from .metadata import write_metadata as add_metadata
from .quantisation import after_embedding, calibration_images

P = ParamSpec("P")


def _file(root: Path | str, kind: str, name: str) -> Path:
    """A file in anomalib's layout, its folder made."""
    path = Path(root) / "weights" / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _whole(export: Callable[Concatenate[Any, Path | str, P], Path]) -> Callable[Concatenate[Any, Path | str, P], Path]:
    """Let an export write into a folder of its own, and move its files in place once they are complete."""

    @functools.wraps(export)
    def exported(self: Any, export_root: Path | str, *args: P.args, **kwargs: P.kwargs) -> Path:
        root = Path(export_root)
        root.mkdir(parents=True, exist_ok=True)
        # What exporters write on the way is there, too, so that nothing stays of a process that is killed.
        with workspace(root, ".export-") as folder, patch.object(tempfile, "tempdir", str(folder)):
            path = export(self, folder, *args, **kwargs)
            target = root / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            for file in path.parent.iterdir():
                file.replace(target.parent / file.name)
        return target

    return exported


class ExportFormats(ExportMixin):
    """Writes a detector with its metadata, whole or not at all.

    It stands before Lightning's module among the bases of a detector.
    """

    metadata: Metadata
    """What travels with exported files."""
    modalities: tuple[Modality, ...]
    """Modality of each input."""
    device: torch.device

    @_whole
    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export for ``TorchInferencer``, see :meth:`~anomalib.models.components.base.ExportMixin.to_torch`."""
        path = _file(export_root, "torch", f"{model_file_name}.pt")
        torch.save({"model": copy.deepcopy(self).requires_grad_(False), KEY: self.metadata.to_json()}, path)
        return path

    @_whole
    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Path:
        """Export as one ONNX file, see :meth:`~anomalib.models.components.base.ExportMixin.to_onnx`.

        The input of a student is called ``input``, those of the teacher ``wli`` and ``nbi``.

        Args:
            export_root: Folder; the file is below ``weights/onnx``.
            model_file_name: Name of the file, without suffix.
            input_size: Height and width of images; any if ``None``.
            batch_size: Number of images a batch; any if ``None``.
            **kwargs: Options of ``torch.onnx.export``.

        Returns:
            Path of the ``.onnx`` file.
        """
        # One file; the opset that torch writes, which older ones would be converted from with a warning.
        kwargs = {"external_data": False, "opset_version": 18} | kwargs
        kwargs.setdefault("dynamic_shapes", self.dynamic_shapes(input_size, batch_size))

        if len(self.modalities) > 1:
            path = _file(export_root, "onnx", f"{model_file_name}.onnx")
            torch.onnx.export(
                self,
                self.example(input_size, batch_size),
                path,
                input_names=[modality.value for modality in self.modalities],
                output_names=list(InferenceBatch._fields),
                dynamo=True,
                **kwargs,
            )
        else:
            path = super().to_onnx(export_root, model_file_name, input_size, **kwargs)
        add_metadata(path, self.metadata)
        return path

    @_whole
    def to_openvino(self, export_root: Path | str, *args: Any, **kwargs: Any) -> Path:
        """Export as OpenVINO IR, see :meth:`~anomalib.models.components.base.ExportMixin.to_openvino`.

        Options of :meth:`to_onnx` are given as ``onnx_kwargs``.
        """
        path = super().to_openvino(export_root, *args, **kwargs)
        add_metadata(path, self.metadata)
        return path

    @_whole
    def to_torchscript(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export as TorchScript, which gives a dictionary of the fields of ``InferenceBatch``.

        Args:
            export_root: Folder; the file is below ``weights/torchscript``.
            model_file_name: Name of the file, without suffix.

        Returns:
            Path of the ``.ts`` file.
        """
        path = _file(export_root, "torchscript", f"{model_file_name}.ts")
        script = torch.jit.trace(_AsDictionary(self), self.example(), strict=False)
        torch.jit.save(script, path, _extra_files={EXTRA_FILE: self.metadata.to_json()})
        return path

    @_whole
    def to_torch_export(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        batch_size: int | None = None,
    ) -> Path:
        """Export as an archive of ``torch.export``, which gives a dictionary of the fields of ``InferenceBatch``.

        Args:
            export_root: Folder; the file is below ``weights/torch_export``.
            model_file_name: Name of the file, without suffix.
            input_size: Height and width of images; any if ``None``.
            batch_size: Number of images a batch; any if ``None``.

        Returns:
            Path of the ``.pt2`` file.
        """
        path = _file(export_root, "torch_export", f"{model_file_name}.pt2")
        shapes = {"images": self.dynamic_shapes(input_size, batch_size)}
        example = self.example(input_size, batch_size)
        program = torch.export.export(_AsDictionary(self), example, dynamic_shapes=shapes)
        torch.export.save(program, path, extra_files={EXTRA_FILE: self.metadata.to_json()})
        return path

    def example(
        self, input_size: tuple[int, int] | None = None, batch_size: int | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Blank images, or pairs, to export with; open sizes must not be 1, which would be taken for constants."""
        shape = (batch_size or 2, 3, *(input_size or (32, 32)))
        return tuple(torch.zeros(shape, device=self.device) for _ in self.modalities)

    def dynamic_shapes(
        self, input_size: tuple[int, int] | None = None, batch_size: int | None = None
    ) -> tuple[dict[int, Any], ...]:
        """Size of each open dimension of each input; of the batch also if it is given."""
        axes = {0: batch_size or torch.export.Dim("batch_size")}
        if input_size is None:
            axes |= {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
        return (axes,) * len(self.modalities)

    def _post_training_quantization_ov(self, model: Any, datamodule: AnomalibDataModule | None = None) -> Any:  # type: ignore[override]
        """Quantise the backbone and the convolutions of the networks.

        What is solved for in its features keeps its precision: it divides them by small deviations.
        """
        import nncf  # noqa: PLC0415  an extra

        images = calibration_images(datamodule, self.modalities)
        return nncf.quantize(
            model,
            nncf.Dataset(images),
            subset_size=len(images),
            # Resizing is a product of matrices.
            ignored_scope=nncf.IgnoredScope(names=after_embedding(model), types=["MatMul"], validate=False),
        )

    @staticmethod
    def _accuracy_control_quantization_ov(*args: Any, **kwargs: Any) -> Any:
        """Not offered: the convolutions whose precision counts are known, and left alone by INT8_PTQ."""
        del args, kwargs
        msg = "MEMD is not quantised with accuracy control; use compression_type INT8_PTQ, then test the result."
        raise ValueError(msg)


class _AsDictionary(nn.Module):
    """A detector whose predictions are of types that every PyTorch knows."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, *images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.detector(*images)._asdict()
