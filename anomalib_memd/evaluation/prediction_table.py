"""The table of what was predicted, and of what could not be."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from anomalib.data import PredictDataset
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from anomalib_memd.data.colours import mismatch, plain_modality
from anomalib_memd.data.reading import ImageReadError, read_image
from anomalib_memd.files import written_whole
from anomalib_memd.modality import Modality

from .post_processor import branch_views, detector_post_processor

COLUMNS = ["path", "modality", "score", "label", "threshold", "error"]


class PredictionTable(Callback):
    """Write ``predictions.csv`` beside the pictures: path, modality, normalised score, label, threshold and error.

    Files of a folder that cannot be read are left out of the prediction, and are in the table with their error.
    Images whose colours plainly are those of the other modality are warned of.

    Args:
        modality: Modality of images that are no pairs; ``None`` leaves it open.
    """

    def __init__(self, modality: Modality | str | None) -> None:
        self.modality = None if modality is None else Modality(modality)
        self.rows: list[dict[str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the files of a folder before they are predicted."""
        del pl_module
        if stage != "predict":
            return
        self.rows = []
        source = trainer.predict_loop._data_source.instance  # noqa: SLF001  no public name before the loop
        for loader in source if isinstance(source, list) else [source]:  # A datamodule has no dataset.
            if isinstance(getattr(loader, "dataset", None), PredictDataset):
                self._inspect(loader.dataset)

    def _inspect(self, dataset: PredictDataset) -> None:
        readable, strange = [], 0
        for path in dataset.image_filenames:
            try:
                image = read_image(path)
            except ImageReadError as error:
                rank_zero_warn(f"Left out: {error}")
                self.rows.append({"path": str(path), "modality": self.modality, "error": str(error)})
                continue
            readable.append(path)
            if self.modality is not None:
                strange += plain_modality(image.as_subclass(torch.Tensor)[None]) is self.modality.other
        if not readable:
            msg = f"None of {len(dataset.image_filenames)} files can be read; the first: {self.rows[0]['error']}"
            raise ImageReadError(msg)
        if self.modality is not None and strange > len(readable) / 2:
            rank_zero_warn(f"{strange} of {len(readable)} images: {mismatch(self.modality)}")
        dataset.image_filenames = readable

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take in a batch, post-processed."""
        del trainer, outputs
        for branch, view in branch_views(batch, self.modality):
            processor = detector_post_processor(pl_module.post_processor, branch)
            threshold = float(getattr(processor, "normalized_image_threshold", float("nan")))
            labels = view.pred_label if view.pred_label is not None else view.pred_score > threshold
            for path, score, label in zip(view.image_path, view.pred_score, labels, strict=True):
                self.rows.append(
                    {
                        "path": str(path),
                        "modality": branch,
                        "score": float(score),
                        "label": "abnormal" if bool(label) else "normal",
                        "threshold": threshold,
                    }
                )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        del pl_module
        rows = self.rows
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, rows)
            rows = [row for part in parts for row in part]
        if not trainer.is_global_zero:
            return
        table = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates().sort_values(["path", "modality"])
        path = Path(trainer.default_root_dir) / "predictions.csv"
        with written_whole(path) as temporary:
            table.to_csv(temporary, index=False)
        rank_zero_info(f"{table.error.isna().sum()} predictions and {table.error.notna().sum()} errors: {path}")
