"""White light and narrow band images of different tissue, to train a translator on."""

from pathlib import Path

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, RandomResizedCrop, RandomVerticalFlip

from .dataset import UnpairedDataset
from .folder import list_images, split_off, training_rows


class UnpairedImages(LightningDataModule):
    """Random crops of a folder of white light and a folder of narrow band images, of any names, sizes and numbers.

    Of a folder with a ``split.csv``, such as those of :class:`~anomalib_memd.Kvasir`, the training images are taken.

    Args:
        wli_root: Folder of white light images, of any depth.
        nbi_root: Folder of narrow band images, of any depth.
        nbi_held_back: Share of the narrow band images that are held back to judge translations by, see
            :func:`~anomalib_memd.data.folder.split_off`.
        crop_size: Side of the square crops in pixels.
        crop_share: Smallest and largest share of the area of an image that a crop shows.
        batch_size: Number of crops of either kind a step.
        num_workers: Number of processes that read images.

    Raises:
        FileNotFoundError: If a folder holds no image.
    """

    def __init__(
        self,
        wli_root: Path | str,
        nbi_root: Path | str,
        nbi_held_back: float = 0.0,
        crop_size: int = 256,
        crop_share: tuple[float, float] = (0.5, 1.0),
        batch_size: int = 1,
        num_workers: int = 2,
    ) -> None:
        super().__init__()
        self.wli_root = Path(wli_root)
        self.nbi_root = Path(nbi_root)
        self.nbi_held_back = nbi_held_back
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augmentations = Compose(
            [
                RandomResizedCrop(crop_size, crop_share, antialias=True),
                RandomHorizontalFlip(),
                RandomVerticalFlip(),
            ]
        )

    def setup(self, stage: str | None = None) -> None:
        """Find the images."""
        del stage
        kept, _ = split_off(list_images(self.nbi_root), self.nbi_held_back)
        self.train_data = UnpairedDataset(training_rows(self.wli_root), self.wli_root, kept, self.augmentations)

    def train_dataloader(self) -> DataLoader:
        """Crops of both kinds, as pairs that are not registered."""
        return DataLoader(
            self.train_data,
            batch_size=self.batch_size,
            shuffle=True,
            num_workers=self.num_workers,
            collate_fn=self.train_data.collate_fn,
            drop_last=len(self.train_data) >= self.batch_size,
        )
