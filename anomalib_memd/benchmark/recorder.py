"""What a benchmark keeps of a test: one row an image, pixel metrics, encodings and a few heat maps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from anomalib.data import Batch
from anomalib.metrics import AnomalibMetric
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2 import Normalize

from anomalib_memd.data import PairedImageBatch
from anomalib_memd.evaluation import overlap_metrics, pixel_areas
from anomalib_memd.models import MEMD

SIDE = 128
"""Height and width of the images and heat maps that are kept, in pixels."""


class ScoreRecorder(Callback):
    """Takes in the raw predictions of a test, before they are normalised and cut to a range.

    It has to stand before the model's own callbacks, as all do that are given to the trainer.

    Args:
        detector: Name of the detector where batches are no pairs: the modality.
        pictures_per_class: Number of images of each class that are kept with their heat maps: its first ones.
    """

    def __init__(self, detector: str, pictures_per_class: int = 3) -> None:
        self.detector = detector
        self.pictures_per_class = pictures_per_class
        self.rows: list[dict[str, Any]] = []
        self.pictures: dict[str, np.ndarray] = {}
        """Of each kept image ``class/name``: ``map/<detector>/...`` (H, W), ``image/<detector>/...`` (3, H, W) in
        [0, 255] and, with masks, ``mask/...`` (H, W)."""
        self._encodings: dict[str, list[torch.Tensor]] = {}
        self._pixels: dict[str, list[AnomalibMetric]] = {}
        self._hooks: list[Any] = []
        self._normalize: Normalize | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how images were normalised, and listen to the encoders of MEMD's students."""
        del trainer
        transform = getattr(pl_module.pre_processor, "transform", None)
        for step in getattr(transform, "transforms", []):
            if isinstance(step, Normalize):
                self._normalize = step
        if isinstance(pl_module, MEMD) and pl_module.model.learns:
            for name, student in pl_module.model.students.items():
                self._hooks.append(student.encoder.register_forward_hook(self._listen(name)))

    def _listen(self, name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            del module, inputs
            self._encodings.setdefault(name, []).append(output.detach().float().mean((-2, -1)).cpu())

        return hook

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop to listen."""
        del trainer, pl_module
        while self._hooks:
            self._hooks.pop().remove()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Batch, batch: Batch, *args: Any
    ) -> None:
        """Take in one batch."""
        del trainer, pl_module, outputs, args
        masks: Any = (
            None if batch.gt_mask is None else batch.gt_mask.reshape(-1, *batch.gt_mask.shape[-2:]).bool().cpu()
        )
        # The files of narrow band images lie in folders of the same names.
        files = [Path(path) for path in batch.image_path]
        for detector, view in self._views(batch):
            scores, labels = view.pred_score.flatten().tolist(), view.gt_label.tolist()
            maps = view.anomaly_map
            if maps is not None:
                maps = maps.detach().float().reshape(len(files), *maps.shape[-2:]).cpu()
                if masks is not None:
                    decided = view.pred_mask
                    decided = None if decided is None else decided.reshape(maps.shape).bool().cpu()
                    self._measure(detector, SimpleNamespace(anomaly_map=maps, gt_mask=masks, pred_mask=decided))
            for row, file in enumerate(files):
                name = f"{file.parent.name}/{file.stem}"
                self.rows.append(
                    {
                        "detector": detector,
                        "image": name,
                        "class": file.parent.name,
                        "label": int(labels[row]),
                        "score": scores[row],
                    }
                )
                if self._count(detector, file.parent.name) < self.pictures_per_class:
                    self.pictures[f"image/{detector}/{name}"] = self._thumbnail(view.image[row])
                    if maps is not None:
                        self.pictures[f"map/{detector}/{name}"] = _resize(maps[row][None])[0].numpy().astype(np.float16)
                    if masks is not None:
                        self.pictures[f"mask/{name}"] = _resize(masks[row][None].float())[0].numpy() > 0.5

    def _views(self, batch: Batch) -> list[tuple[str, Any]]:
        if isinstance(batch, PairedImageBatch):
            return [(branch.value, view) for branch, view in batch.views()]
        return [(self.detector, batch)]

    def _count(self, detector: str, class_name: str) -> int:
        return sum(name.startswith(f"image/{detector}/{class_name}/") for name in self.pictures)

    def _thumbnail(self, image: torch.Tensor) -> np.ndarray:
        image = image.detach().float().as_subclass(torch.Tensor).cpu()
        if self._normalize is not None:
            mean, std = (torch.tensor(v)[:, None, None] for v in (self._normalize.mean, self._normalize.std))
            image = image * std + mean
        return (255 * _resize(image).clamp(0, 1)).round().byte().numpy()

    def scores(self) -> pd.DataFrame:
        """All rows: ``detector, image, class, label, score``."""
        return pd.DataFrame(self.rows, columns=["detector", "image", "class", "label", "score"])

    def encodings(self) -> dict[str, np.ndarray]:
        """Globally pooled encodings of MEMD's students, ``(N, width)``, in the order of the scores."""
        shared = len(self._encodings) == 1
        return {} if shared else {name: torch.cat(parts).numpy() for name, parts in self._encodings.items()}

    def pixel_metrics(self) -> dict[str, dict[str, float]]:
        """Pixel AUROC and AUPRO of each detector that draws maps, if the test set has masks.

        A network that decides about pixels by itself has the overlap of its masks too, see
        :func:`~anomalib_memd.evaluation.overlap_metrics`.
        """
        return {
            detector: {metric.name: float(metric.compute()) for metric in metrics}
            for detector, metrics in self._pixels.items()
        }

    def _measure(self, detector: str, view: SimpleNamespace) -> None:
        if detector not in self._pixels:
            # A network that segments has decided by itself.
            decided = [] if view.pred_mask is None else overlap_metrics()
            self._pixels[detector] = [*pixel_areas(), *decided]
        for metric in self._pixels[detector]:
            metric.update(view)


def _resize(image: torch.Tensor) -> torch.Tensor:
    return F.interpolate(image[None], (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)[0]
