"""What the exported students cost and keep: agreement with PyTorch, latency, memory and size."""

import logging
import multiprocessing
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType
from anomalib.models import AnomalibModule, Patchcore, Stfpm
from anomalib.models.components import TimmFeatureExtractor
from sklearn.metrics import roc_auc_score
from torch import nn

from anomalib_memd.deployment import AS_EXPORTED
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models import MEMD

from .cost import times_ms
from .markup import to_markdown

logger = logging.getLogger(__name__)

BATCHES = (1, 16)
TURNS = 7
COMPRESSIONS = {
    "FP32": None,
    "FP16": CompressionType.FP16,
    "INT8": CompressionType.INT8_PTQ,
}


def measure_deployment(ckpt: Path, datamodule: AnomalibDataModule, folder: Path, images: int = 100) -> str:
    """Export both students, and measure them.

    Args:
        ckpt: Checkpoint of MEMD.
        datamodule: Pairs; its training images calibrate INT8, and its validation images are judged.
        folder: Where exports and tables go.
        images: Number of validation images on which every format is compared with PyTorch.

    Returns:
        Both tables as Markdown. They are also written to ``agreement.csv`` and ``speed.csv``.
    """
    model = MEMD.load_from_checkpoint(ckpt, map_location="cpu", visualizer=False).eval()
    exports = {modality: _export_student(model, modality, datamodule, folder / modality) for modality in Modality}
    datamodule.setup("validate")
    agreement = pd.DataFrame(
        [row for modality in Modality for row in _agreement(model, modality, exports[modality], datamodule, images)]
    )
    agreement.to_csv(folder / "agreement.csv", index=False)
    speed = _speed(model, {f"MEMD student, {name}": exports[Modality.WLI][name] for name in COMPRESSIONS}, folder)
    speed.to_csv(folder / "speed.csv", index=False)
    return f"{to_markdown(agreement)}\n\n{to_markdown(speed)}"


def _export_student(model: MEMD, modality: Modality, datamodule: AnomalibDataModule, folder: Path) -> dict[str, Path]:
    """The files of a student: ``ONNX``, ``TorchScript``, and OpenVINO by the names of :data:`COMPRESSIONS`."""
    detector = model.deployed(modality)
    onnx = detector.to_onnx(folder)
    exports = {"ONNX": onnx, "TorchScript": detector.to_torchscript(folder)}
    # Tracing takes longest: OpenVINO's files are made from what has been traced.
    detector.to_onnx = lambda *args, **kwargs: onnx  # type: ignore[method-assign]  # noqa: ARG005
    for name, compression in COMPRESSIONS.items():
        exports[name] = detector.to_openvino(folder / name.lower(), compression_type=compression, datamodule=datamodule)
    return exports


def _agreement(
    model: MEMD, modality: Modality, exports: dict[str, Path], datamodule: AnomalibDataModule, images: int
) -> Iterator[dict[str, Any]]:
    """Largest differences of scores and maps over some images, and the image AUROC over all."""
    import onnxruntime  # noqa: PLC0415  extras
    import openvino  # noqa: PLC0415

    parts = [(_of(modality, batch), batch.gt_label) for batch in datamodule.val_dataloader()]
    batches, labels = [images for images, _ in parts], torch.cat([label for _, label in parts]).numpy()
    core = openvino.Core()
    session = onnxruntime.InferenceSession(exports["ONNX"])
    script = torch.jit.load(exports["TorchScript"])
    outputs = ["pred_score", "anomaly_map"]
    runs: dict[str, Any] = {"PyTorch": lambda x: _trained(model, modality, x)}
    runs |= {f"OpenVINO {name}": _openvino(core, exports[name], outputs) for name in COMPRESSIONS}
    runs["ONNX Runtime"] = lambda x: session.run(outputs, {"input": x.numpy()})
    runs["TorchScript"] = lambda x: [script(x)[name].numpy() for name in outputs]
    # Images are in the order of their classes.
    order = np.random.default_rng(0).permutation(len(labels))[:images]
    some = torch.cat(batches)[order].split(16)
    with torch.inference_mode():
        reference = [runs["PyTorch"](batch) for batch in some]
        for name, run in runs.items():
            differences = [
                [np.abs(a - b).max() for a, b in zip(run(batch), expected, strict=True)]
                for batch, expected in zip(some, reference, strict=True)
            ]
            score, anomaly_map = np.max(differences, axis=0)
            row = {"modality": modality.value.upper(), "format": name}
            row |= {"score difference": f"{score:.1e}", "map difference": f"{anomaly_map:.1e}"}
            # All images where the format itself may cost accuracy.
            if name == "PyTorch" or name.startswith("OpenVINO"):
                scores = np.concatenate([run(batch)[0] for batch in batches])
                row["image AUROC"] = f"{100 * roc_auc_score(labels, scores):.2f}"
            yield row


def _openvino(core: Any, path: Path, outputs: list[str]) -> Any:
    network = core.compile_model(path, "CPU", AS_EXPORTED)

    def run(images: torch.Tensor) -> list[np.ndarray]:
        found = network(images.numpy())
        return [found[name] for name in outputs]

    return run


def _of(modality: Modality, batch: Any) -> torch.Tensor:
    return batch.image if modality is Modality.WLI else batch.nbi_image


def _trained(model: MEMD, modality: Modality, images: torch.Tensor) -> list[np.ndarray]:
    """Scores and maps as in a test by anomalib: the pre-processor's own transform, not the one for export."""
    seen = model.pre_processor.transform(images)
    branch = Branch(modality.value)
    raw = model.model.judge(branch, {modality: model.model.embedding(seen)}, seen.shape[-2:])
    found = model.post_processor.branch(branch)(raw)
    return [found.pred_score.numpy(), found.anomaly_map.numpy()]


def _speed(model: MEMD, exports: dict[str, Path], folder: Path) -> pd.DataFrame:
    """Latency, memory and size of a student, its bare backbone, and two peers, untrained as that changes nothing."""
    side = tuple(model.input_size)
    backbone = model.model.embedding.backbone
    open_batch = {"bare backbone, FP32": _export(_Backbone(backbone), folder / "backbone", side)}
    files = {name: dict.fromkeys(BATCHES, path) for name, path in (open_batch | exports).items()}
    for name, build in {"PatchCore": lambda: _patchcore(backbone), "STFPM (ResNet-18)": Stfpm}.items():
        try:
            files[f"{name}, FP32"] = {
                batch: _export_peer(build(), folder / name.split()[0], side, batch) for batch in BATCHES
            }
        except Exception:
            logger.exception("%s is left out.", name)
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        # Memory is that of a process of its own. Turns, since the speed of a machine drifts.
        pools = {name: stack.enter_context(context.Pool(1)) for name in files}
        rows = [{"model": name} | pool.apply(_load, (files[name], side)) for name, pool in pools.items()]
        for batch in BATCHES:
            times: dict[str, list[float]] = {name: [] for name in pools}
            for _ in range(TURNS):
                for name, pool in pools.items():
                    times[name] += pool.apply(_time, (batch,))
            for row in rows:
                row[f"ms, batch {batch}"] = round(statistics.median(times[row["model"]]), 1)
    table = pd.DataFrame(rows)
    for batch in BATCHES:
        table[f"x backbone, batch {batch}"] = (table[f"ms, batch {batch}"] / table[f"ms, batch {batch}"][0]).round(2)
    return table


def _patchcore(backbone: TimmFeatureExtractor) -> Patchcore:
    """PatchCore with a memory of random patches, as many as a thousandth of those of 800 images."""
    peer = Patchcore(backbone=backbone.backbone, layers=backbone.layers, pre_trained=False)
    peer.model.memory_bank = torch.rand(819, sum(backbone.out_dims))
    return peer


class _Backbone(nn.Module):
    """A feature extractor that gives a tuple."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.extractor(images).values())


def _export(module: nn.Module, folder: Path, side: tuple[int, int]) -> Path:
    import openvino  # noqa: PLC0415  an extra

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    shapes = ({0: torch.export.Dim("batch_size")},)
    torch.onnx.export(module.eval(), (torch.zeros(2, 3, *side),), path, dynamo=True, dynamic_shapes=shapes)
    openvino.save_model(openvino.convert_model(path), path.with_suffix(".xml"), compress_to_fp16=False)
    return path.with_suffix(".xml")


def _export_peer(peer: AnomalibModule, folder: Path, side: tuple[int, int], batch: int) -> Path:
    """Export for one size of batch, since not every model of anomalib can leave it open."""
    shapes = {"dynamic_shapes": ({0: batch},)}
    return peer.to_openvino(folder / f"batch-{batch}", input_size=side, onnx_kwargs=shapes)


_loaded: dict[int, Any] = {}
"""What a measuring process times, by size of batch."""


def _load(paths: dict[int, Path], side: tuple[int, int]) -> dict[str, Any]:
    """Compile a model for each size of batch; the memory taken for the first, and the files' size."""
    import openvino  # noqa: PLC0415  an extra

    process = psutil.Process()
    before = process.memory_info().rss
    used = 0
    for batch, path in paths.items():
        network = openvino.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"} | AS_EXPORTED)
        _loaded[batch] = partial(network, np.random.default_rng(0).random((batch, 3, *side), dtype=np.float32))
        _loaded[batch]()
        used = used or process.memory_info().rss - before
    size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
    return {"MB of memory": round(used / 1e6), "MB of files": round(size / 1e6, 1)}


def _time(batch: int) -> list[float]:
    return times_ms(_loaded[batch], repeats=max(3, 16 // batch), warm_up=1)
