"""The Kvasir V2 data set, and any folder of endoscopic images with a ``split.csv``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import TestSplitMode, ValSplitMode
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from torchvision.transforms.v2 import Transform

from anomalib_memd.data.spectral import SpectralNBI

from .dataset import DataModality, EndoscopyDataset, UnpairedDataset
from .download import download_archive, unpack_archive
from .folder import list_images
from .folder_split import has_plain_layout, split_folder
from .split import SplitError, has_normal_images_alone, is_for_test_alone, make_split, read_split, write_split

URL = "https://datasets.simula.no/downloads/kvasir/kvasir-dataset-v2.zip"
NORMAL_CLASSES = ("normal-cecum", "normal-pylorus", "normal-z-line")
ABNORMAL_CLASSES = ("esophagitis", "polyps", "ulcerative-colitis")


class Kvasir(AnomalibDataModule):
    """Endoscopic images in one folder a class, as white light, as narrow band, or as registered pairs.

    If ``root`` has a ``split.csv``, it is used; one with test images alone serves to test a checkpoint, one with normal
    images alone to train. A folder with ``normal`` and perhaps ``abnormal`` and ``masks`` in it is split for you, see
    :func:`~anomalib_memd.data.folder_split.split_folder`. Anything else is taken for Kvasir V2: it is downloaded unless
    it is there, and the split of the MEMD paper is drawn. A split that was drawn is written to ``root/split.csv``.

    Args:
        root: Folder of the data set.
        normal_classes: Normal classes; all of the ``split.csv``, or the paper's three, if ``None``.
        abnormal_classes: Abnormal classes; likewise.
        modality: ``paired`` for MEMD; ``wli`` or ``nbi`` give the plain image batches of other anomalib models.
        nbi_root: Folder parallel to ``root`` with the narrow band partners.
        unpaired_nbi_root: Folder of normal narrow band images, of any number, that are nobody's partners. Given,
            MEMD's students train on it beside the white light images; its teacher keeps the pairs.
        translator: Makes the partners if there is no ``nbi_root``; :class:`~anomalib_memd.SpectralNBI` if ``None``.
        train_batch_size: Number of training images, or pairs, a step.
        eval_batch_size: Number of images, or pairs, a step of validation and test.
        num_workers: Number of processes that read images.
        train_augmentations: Transform of training images; a random one is drawn jointly for image, partner and
            mask, and means that MEMD's features cannot be kept from epoch to epoch.
        val_augmentations: Transform of validation images.
        test_augmentations: Transform of test images.
        augmentations: Transform of all images for which none is given above.
        split_seed: Seed of the split, if one is drawn.
        split_sizes: Normal training images, normal validation images and normal test images of a drawn split;
            validation and test get as many abnormal ones again.
        group_pattern: Regular expression that finds the patient, or the video, in the path of an image; nobody then
            stands in two splits of a folder that is split for you.
        group_column: Column of ``root/images.csv`` that tells the same.
        test_only: Whether all images of such a folder are for testing a checkpoint.
        url: Address of the Kvasir V2 archive.
        sha256: Expected digest of the archive, not checked if ``None``.

    Example:
        >>> datamodule = Kvasir(root="datasets/kvasir")  # doctest: +SKIP
        >>> datamodule.setup()  # doctest: +SKIP

    Source:
        Pogorelov et al., "KVASIR: A Multi-Class Image Dataset for Computer Aided Gastrointestinal Disease
        Detection", MMSys 2017.
    """

    labelled = False
    """Whether abnormal images may be trained on."""

    def __init__(
        self,
        root: Path | str = "datasets/kvasir",
        normal_classes: Sequence[str] | None = None,
        abnormal_classes: Sequence[str] | None = None,
        modality: DataModality | str = DataModality.PAIRED,
        nbi_root: Path | str | None = None,
        unpaired_nbi_root: Path | str | None = None,
        translator: nn.Module | None = None,
        train_batch_size: int = 24,
        eval_batch_size: int = 32,
        num_workers: int = 2,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        split_seed: int = 0,
        split_sizes: tuple[int, int, int] = (1800, 400, 600),
        group_pattern: str | None = None,
        group_column: str | None = None,
        test_only: bool = False,
        url: str = URL,
        sha256: str | None = None,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            test_split_mode=TestSplitMode.FROM_DIR,
            val_split_mode=ValSplitMode.FROM_DIR,
        )
        self.root = Path(root)
        self.normal_classes = normal_classes
        self.abnormal_classes = abnormal_classes
        self.modality = DataModality(modality)
        self.nbi_root = Path(nbi_root) if nbi_root is not None else None
        self.unpaired_nbi_root = Path(unpaired_nbi_root) if unpaired_nbi_root is not None else None
        self.translator = translator if translator is not None else SpectralNBI()
        self.split_seed = split_seed
        self.split_sizes = split_sizes
        self.group_pattern = group_pattern
        self.group_column = group_column
        self.test_only = test_only
        self.url = url
        self.sha256 = sha256
        self.shuffle_seed: int | None = None
        """Seed of the order of training images; that of torch if ``None``."""
        self.use_unpaired = False
        """Whether the training loader gives the unpaired sets; MEMD sets it for its second stage."""

    @property
    def name(self) -> str:
        """Name of the data set in result paths: that of its folder."""
        return self.root.resolve().name

    @property
    def split_path(self) -> Path:
        """The file that holds the split."""
        return self.root / "split.csv"

    def prepare_data(self) -> None:
        """Split a folder, or download Kvasir V2 and draw its split, as far as that has not been done.

        Raises:
            DownloadError: If the download fails.
            SplitError: If ``root`` holds neither a split nor the classes to draw one from.
        """
        if self.split_path.exists():
            return
        if has_plain_layout(self.root):
            split = split_folder(self.root, self.split_seed, self.group_pattern, self.group_column, self.test_only)
            write_split(split, self.split_path)
            counts = pd.crosstab(split["split"], split["label"]).to_string()
            rank_zero_info(f"{self.root} was split, see {self.split_path}:\n{counts}")
            return
        if not self.root.exists():
            archive = download_archive(self.url, self.root.with_name(self.root.name + ".zip"), self.sha256)
            unpack_archive(archive, self.root)
            archive.unlink()
        normal = NORMAL_CLASSES if self.normal_classes is None else self.normal_classes
        abnormal = ABNORMAL_CLASSES if self.abnormal_classes is None else self.abnormal_classes
        write_split(make_split(self.root, normal, abnormal, *self.split_sizes, seed=self.split_seed), self.split_path)

    def _read_split(self) -> pd.DataFrame:
        """Rows of all splits, see :func:`~anomalib_memd.data.split.read_split`."""
        if not self.split_path.exists():
            msg = f"{self.root} has no split.csv; call prepare_data(), or give the folder of a data set as root."
            raise SplitError(msg)
        return read_split(self.split_path, self.normal_classes, self.abnormal_classes, self.labelled)

    def _setup(self, _stage: str | None = None) -> None:
        split = self._read_split()
        if self.test_only and not is_for_test_alone(split):
            msg = f"{self.split_path} has training images, but test_only was asked for; remove the file, or test_only."
            raise SplitError(msg)
        if is_for_test_alone(split):
            rank_zero_info(f"{self.root} has test images alone: thresholds are those of the checkpoint.")
        if has_normal_images_alone(split):
            rank_zero_info(
                f"{self.root} has normal images alone: how well abnormal ones are told from them cannot be measured, "
                f"only how many of them are called abnormal."
            )
        self.train_data = self._dataset(split[split.split == "train"])
        self.val_data = self._dataset(split[split.split == "val"])
        self.test_data = self._dataset(split[split.split == "test"])
        if self.unpaired_nbi_root is not None:
            normal = split[split.split == "train"]
            self.unpaired_train_data = UnpairedDataset(normal, self.root, list_images(self.unpaired_nbi_root))

    def _dataset(
        self, split: pd.DataFrame, kind: type[EndoscopyDataset] = EndoscopyDataset, **options: Any
    ) -> EndoscopyDataset:
        return kind(
            split.reset_index(drop=True),
            self.root,
            self.modality,
            nbi_root=self.nbi_root,
            translator=self.translator,
            **options,
        )

    def _create_test_split(self) -> None:
        """The split is complete as read."""

    def _create_val_split(self) -> None:
        """The split is complete as read."""

    def _update_augmentations(self) -> None:
        super()._update_augmentations()
        if self.unpaired_nbi_root is not None:
            self.unpaired_train_data.augmentations = self.train_data.augmentations

    def train_datasets(self) -> list[EndoscopyDataset]:
        """All sets that training can draw from, in the order of the stages.

        Raises:
            SplitError: If there is no training image.
        """
        if not len(self.train_data):
            msg = f"{self.root} has test images alone: it can be tested, but nothing can be trained on it."
            raise SplitError(msg)
        return [self.train_data] + ([self.unpaired_train_data] if self.unpaired_nbi_root is not None else [])

    def train_dataloader(self) -> DataLoader:
        """Training images: the pairs, or the unpaired sets where they are wanted and given."""
        dataset = self.train_datasets()[-1 if self.use_unpaired else 0]
        trainer = self.trainer
        # Its order is a function of seed and epoch alone, whether the run was resumed or is shared by processes.
        sampler: DistributedSampler = DistributedSampler(
            dataset,
            num_replicas=trainer.world_size if trainer is not None else 1,
            rank=trainer.global_rank if trainer is not None else 0,
            seed=torch.initial_seed() % 2**31 if self.shuffle_seed is None else self.shuffle_seed,
        )
        sampler.set_epoch(trainer.current_epoch if trainer is not None else 0)
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=self.train_batch_size,
            num_workers=self.num_workers,
            collate_fn=self.external_collate_fn or dataset.collate_fn,
            # A last batch of one image would leave batch normalisation without a variance.
            drop_last=len(sampler) % self.train_batch_size == 1 and len(sampler) > 1,
        )

    def val_dataloader(self) -> DataLoader:
        """Validation images."""
        return self._eval_dataloader(self.val_data)

    def test_dataloader(self) -> DataLoader:
        """Test images."""
        return self._eval_dataloader(self.test_data)

    def _eval_dataloader(self, dataset: EndoscopyDataset) -> DataLoader:
        distributed = self.trainer is not None and self.trainer.world_size > 1
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            num_workers=self.num_workers,
            collate_fn=self.external_collate_fn or dataset.collate_fn,
            # Lightning's own sampler repeats images to even out the processes, and so would skew the metrics.
            sampler=UnrepeatedDistributedSampler(
                dataset,
                num_replicas=self.trainer.world_size,
                rank=self.trainer.global_rank,
                shuffle=False,
            )
            if distributed
            else None,
        )
