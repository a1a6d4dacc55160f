"""Pictures of pairs: each modality beside its heat map, and the mask."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anomalib.data import ImageItem
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from anomalib.visualization.image.functional import create_image_grid
from anomalib.visualization.image.item_visualizer import visualize_image_item
from PIL import Image

from anomalib_memd.data import PairedImageBatch, PairedImageItem

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
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        field_size: tuple[int, int] = (256, 256),
        output_dir: str | Path | None = None,
    ) -> None:
        super().__init__(field_size=field_size, output_dir=output_dir)
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
        for image, anomaly_map in ((item.image, item.anomaly_map), (item.nbi_image, item.nbi_anomaly_map)):
            panels += self._panels(image, anomaly_map)
        if item.gt_mask is not None:
            mask = visualize_image_item(
                ImageItem(image=item.image.cpu(), gt_mask=item.gt_mask.cpu()),
                fields=["gt_mask"],
                field_size=self.field_size,
            )
            panels.append(mask)
        return create_image_grid(panels, nrow=len(panels))

    def _panels(
        self,
        image: torch.Tensor,
        anomaly_map: torch.Tensor | None,
    ) -> list[Image.Image]:
        """The image, and with predictions the image under its heat map."""
        shown = (image.cpu() * self.std + self.mean).clamp(0, 1)
        view = ImageItem(image=shown, anomaly_map=None if anomaly_map is None else anomaly_map.cpu())
        options = {"field_size": self.field_size, "text_config": self.text_config}
        panels = [visualize_image_item(view, fields=["image"], **options)]
        if anomaly_map is not None:
            panels.append(visualize_image_item(view, overlay_fields=[("image", ["anomaly_map"])], **options))
        return panels

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
