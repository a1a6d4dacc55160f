"""The command that exports both students, or the teacher, in any format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType

from anomalib_memd.modality import Branch
from anomalib_memd.models.memd.lightning_model import MEMD

Format = Literal["openvino", "onnx", "torch", "torchscript", "torch_export"]
BranchName = Literal["wli", "nbi", "teacher"]


def export(
    ckpt: Path,
    output: Path = Path("results/export"),
    formats: Sequence[Format] = ("openvino",),
    branches: Sequence[BranchName] = ("wli", "nbi"),
    input_size: tuple[int, int] | None = None,
    batch_size: int | None = None,
    compression: CompressionType | None = None,
    data: AnomalibDataModule | None = None,
) -> pd.DataFrame:
    """Export students, or the teacher, of a trained MEMD.

    Args:
        ckpt: Checkpoint of a run that trained both stages.
        output: Folder; each file is at BRANCH/weights/FORMAT/model.* below it.
        formats: Any of openvino, onnx, torch, torchscript, torch_export.
        branches: Any of wli, nbi, teacher; the teacher takes a registered pair as two inputs.
        input_size: Height and width of the images; any if not given; torch and torchscript take any.
        batch_size: Number of images a batch; likewise.
        compression: Of OpenVINO: FP16, INT8 (weights alone), or INT8_PTQ (needs data).
        data: Datamodule whose images the model is quantised by.

    Returns:
        Branch, format, file and its size in MB.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint is none of MEMD, or options do not go together.
        RuntimeError: If a branch has not been trained.
    """
    if compression is not None and set(formats) != {"openvino"}:
        msg = f"Only OpenVINO knows compression={compression.value}; leave out the other formats."
        raise ValueError(msg)
    model = MEMD.load_from_checkpoint(ckpt, map_location="cpu", visualizer=False)
    rows = []
    for branch in branches:
        detector, root = model.deployed(Branch(branch)), output / branch
        for kind in formats:
            options: dict[str, Any] = {}
            if kind == "openvino":
                options = {"compression_type": compression, "datamodule": data}
                options |= {"input_size": input_size, "onnx_kwargs": {"batch_size": batch_size}}
            elif kind in {"onnx", "torch_export"}:
                options = {"input_size": input_size, "batch_size": batch_size}
            path = getattr(detector, f"to_{kind}")(root, **options)
            files = [path, path.with_suffix(".bin")] if kind == "openvino" else [path]
            size = sum(file.stat().st_size for file in files)
            rows.append({"branch": branch, "format": kind, "file": str(path), "MB": round(size / 1e6, 1)})
    return pd.DataFrame(rows)
