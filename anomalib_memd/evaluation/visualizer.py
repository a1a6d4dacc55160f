"""Pictures of pairs: each modality beside its heat map, and the mask."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anomalib.data import ImageItem
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from anomalib.visualization.image.functional import add_text_to_image, create_image_grid
from anomalib.visualization.image.item_visualizer import visualize_image_item
from PIL import Image

from anomalib_memd.data import PairedImageBatch, PairedImageItem

from .pre_processor import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class MultimodalVisualizer(ImageVisualizer):
    """Draw WLI, its heat map, NBI, its heat map and, where there is one, the mask side by side.

    Batches that are no pairs are drawn as by :class:`~anomalib.visualization.ImageVisualizer`.

    Args:
        mean: Mean that was subtracted from images, for each channel.
        std: Deviation by which images were divided, for each channel.
        field_size: Width and height of each panel in pixels.
        output_dir: Where pictures go; below the results of the run if ``None``.
    """

    def __init__(
        self,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        field_size: tuple[int, int] = (256, 256),
        output_dir: str | Path | None = None,
    ) -> None:
        super().__init__(field_size=field_size, output_dir=output_dir)
        self.normalized_by(mean, std)

    def normalized_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Take over by which mean and deviation of each channel images are normalised."""
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def draw_pair(self, item: PairedImageItem) -> Image.Image:
        """Draw one pair.

        Args:
            item: Normalised images with post-processed predictions.

        Returns:
            Panels in a row.
        """
        panels = []
        for name, image, anomaly_map in (
            ("WLI", item.image, item.anomaly_map),
            ("NBI", item.nbi_image, item.nbi_anomaly_map),
        ):
            view = ImageItem(image=(image.cpu() * self.std + self.mean).clamp(0, 1))
            panels.append(self._panel(view, name, fields=["image"]))
            if anomaly_map is not None:
                view.anomaly_map = anomaly_map.cpu()
                panels.append(self._panel(view, f"{name} heat map", overlay_fields=[("image", ["anomaly_map"])]))
        if item.gt_mask is not None:
            view = ImageItem(image=item.image.cpu(), gt_mask=item.gt_mask.cpu())
            panels.append(self._panel(view, "Mask", fields=["gt_mask"]))
        return create_image_grid(panels, nrow=len(panels))

    def _panel(self, item: ImageItem, title: str, **what: Any) -> Image.Image:
        """One panel, drawn by anomalib, under its own title."""
        plain = {**self.text_config, "enable": False}
        panel = visualize_image_item(item, field_size=self.field_size, text_config=plain, **what)
        text = {name: value for name, value in self.text_config.items() if name != "enable"}
        return add_text_to_image(panel, title, **text) if self.text_config["enable"] else panel

    def on_test_batch_end(
        self,
        trainer: "Trainer",
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save a picture of every pair, or of every image."""
        if not isinstance(batch, PairedImageBatch):
            super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
            return
        if self.output_dir is None:
            self.output_dir = Path(trainer.default_root_dir) / "images"
        datamodule = getattr(trainer, "datamodule", None)
        for item in batch:
            target = generate_output_filename(
                input_path=item.image_path,
                output_path=self.output_dir,
                dataset_name=getattr(datamodule, "name", None),
                category=getattr(datamodule, "category", None),
            )
            self.draw_pair(item).save(target)
