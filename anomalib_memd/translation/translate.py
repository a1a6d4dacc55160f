"""The command that translates a folder."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image as PILImage
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import to_pil_image

from anomalib_memd.data.folder import list_images
from anomalib_memd.data.reading import ImageReadError, read_image
from anomalib_memd.data.spectral import SpectralNBI
from anomalib_memd.files import written_whole

from .learned import LearnedNBI

_QUALITY = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
}


def translate(
    input: Path,  # noqa: A002  the name of the option
    output: Path,
    weights: Path | None = None,
    translator: nn.Module | None = None,
    split: str | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    num_workers: int = 2,
) -> pd.DataFrame | None:
    """Translate a folder of white light into one of narrow band images, of the same names and sizes.

    Images that are in the output already are not translated again. Files that cannot be read are named, and left out.

    Args:
        input: Folder of white light images, of any depth; of one with a split.csv, the images that it names.
        output: Folder of the narrow band images.
        weights: Checkpoint of WtNGAN; the closed-form translation if not given.
        translator: A translator with options of its own, such as SpectralNBI with coefficients from fit-spectral.
        split: Of a folder with a split.csv, one of train, val and test; all of them if not given.
        accelerator: As Lightning knows them.
        devices: Number of devices, or of processes on the CPU.
        num_workers: Number of processes that read images.

    Returns:
        One row: number of images translated, there before, and broken; images a second. Nothing in any but the first
        of several processes.

    Raises:
        FileNotFoundError: If there is no image, or no such checkpoint.
        ValueError: If the output is in the input, both weights and translator are given, or the checkpoint is none
            of WtNGAN.
    """
    if weights is not None and translator is not None:
        msg = "Give weights or a translator, not both."
        raise ValueError(msg)
    if output.resolve().is_relative_to(input.resolve()):
        msg = f"The output {output} is in the input {input} and would mix with it; choose another folder."
        raise ValueError(msg)
    names = [path.relative_to(input) for path in list_images(input, split)]
    missing = [name for name in names if not (output / name).exists()]
    if translator is None:
        translator = SpectralNBI() if weights is None else LearnedNBI(weights)
    writer = _Writer(output)
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        callbacks=[writer],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    loader = DataLoader(_Files(input, missing), batch_size=None, num_workers=num_workers)
    started = time.monotonic()
    if missing:
        trainer.predict(_Translator(translator), loader, return_predictions=False)
    took = time.monotonic() - started
    if not trainer.is_global_zero:
        return None
    broken = [name for name in missing if not (output / name).exists()]
    done = len(missing) - len(broken)
    row = {"translated": done, "there before": len(names) - len(missing), "broken": len(broken)}
    return pd.DataFrame([row | {"images a second": round(done / took, 1)}])


class _Files(Dataset):
    """Names and images; an error instead of an image that cannot be read."""

    def __init__(self, root: Path, names: Sequence[Path]) -> None:
        self.root = root
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor | str]:
        name = self.names[index]
        try:
            return str(name), read_image(self.root / name).as_subclass(torch.Tensor)
        except ImageReadError as error:
            return str(name), str(error)


class _Translator(LightningModule):
    def __init__(self, translator: nn.Module) -> None:
        super().__init__()
        self.translator = translator

    def predict_step(self, batch: tuple[str, torch.Tensor | str]) -> torch.Tensor | None:
        _, image = batch
        if isinstance(image, str):
            rank_zero_warn(f"Left out: {image}")
            return None
        return self.translator(image)


class _Writer(BasePredictionWriter):
    """Write each image under its name, whole or not at all."""

    def __init__(self, root: Path) -> None:
        super().__init__("batch")
        self.root = root

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: torch.Tensor | None,
        batch_indices: Sequence[int] | None,
        batch: tuple[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        del trainer, pl_module, batch_indices, batch_idx, dataloader_idx
        if prediction is not None:
            save_image(to_pil_image(prediction.cpu()), self.root / batch[0])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the other processes, so that what is counted is what all have done."""
        super().on_predict_end(trainer, pl_module)
        trainer.strategy.barrier()


def save_image(image: PILImage.Image, path: Path) -> None:
    """Write an image so that a half-written file never stands under its name.

    Args:
        image: The image.
        path: File; its suffix tells the format. JPEG is written with quality 95 and full colour resolution.
    """
    with written_whole(path) as temporary:
        image.save(temporary, **_QUALITY.get(path.suffix.lower(), {}))
