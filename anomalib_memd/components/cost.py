"""What a training took."""

import time

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from .backbones import seconds_per_image


class TrainingCost(Callback):
    """Tell what training took, in seconds and in passes of the bare backbone over the training pairs.

    The module has its backbone at ``model.embedding.backbone``.
    """

    def __init__(self) -> None:
        self._started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember when training started; features are computed before the first epoch."""
        del trainer, pl_module
        if stage == "fit":
            self._started = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell it."""
        took = time.monotonic() - self._started
        images = 2 * len(trainer.datamodule.train_data)
        one_pass = images * seconds_per_image(pl_module.model.embedding.backbone, pl_module.input_size or (256, 256))
        rank_zero_info(
            f"Training took {took:.0f} s with all features, {took / one_pass:.1f} times one pass of the bare backbone "
            f"over the {images} training images ({one_pass:.0f} s)."
        )
