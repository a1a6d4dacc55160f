"""When a job's training ends: by its own loss, by its number of steps, or by the clock."""

import os
import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, Dataset

from anomalib_memd.models.trained import ready_batches

LOSS, STEPS, TIME, REPEATED = "loss", "steps", "time", "repeated"
"""What ended a training: its loss on held-back images no longer fell, it had the number of steps that it was given,
the time was over, or the run that it repeats had ended there."""


class TrainingEnd(Callback):
    """Ends a training, or each phase of one, by the first of three: held-back loss, steps, time.

    The loss on held-back normal images is measured after each epoch. It has stopped falling if ``patience`` checks have
    not brought it below the best one by a thousandth of that. No label is looked at. A model of several phases has
    ``phases``, ``phase`` and ``end_phase()``, see :class:`~anomalib_memd.models.trained.TrainedMixin`; each phase has
    the same share of the time. The last step counts, not the best.

    Args:
        held_back: Batches of normal images that are not trained on; without them the loss ends nothing.
        seconds: Wall-clock limit; ``None`` for none.
        ends: Number of batches after which each phase ended in a run that is repeated. They replace the limit in time.
        patience: Number of checks in a row without a fall.
    """

    def __init__(
        self,
        held_back: DataLoader | None = None,
        seconds: float | None = None,
        ends: Sequence[int] | None = None,
        patience: int = 5,
    ) -> None:
        self.held_back = held_back
        self.seconds = seconds
        self.repeated = ends
        self.patience = patience
        self.seen = 0
        """Number of batches so far."""
        self.ends: list[int] = []
        """Number of batches after which each phase ended."""
        self.reasons: list[str] = []
        """What ended each phase."""
        self.losses: list[tuple[int, float]] = []
        """Loss on the held-back images after how many batches."""
        self._started = time.monotonic()
        self._best = float("inf")
        self._checks = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        del pl_module
        if self.held_back is not None:  # The trainer has told the training images by now to which size they come.
            self.held_back.dataset.augmentations = trainer.datamodule.train_data.augmentations  # type: ignore[attr-defined]
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Count one, and end what has lasted long enough."""
        del args, kwargs
        self.seen += 1
        phases, phase = getattr(pl_module, "phases", 1), len(self.ends)
        if getattr(pl_module, "phase", phase) > phase:  # It has had the steps that it was given.
            self._note(STEPS)
        elif self.repeated is not None:
            if self.seen == self.repeated[phase]:
                self._end(trainer, pl_module, REPEATED)
        elif self.seconds and time.monotonic() - self._started >= self.seconds * (phase + 1) / phases:
            self._end(trainer, pl_module, TIME)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the loss, and end what it no longer falls in."""
        loss = None if self.held_back is None else held_back_loss(pl_module, self.held_back)
        if loss is None:
            return
        self.losses.append((self.seen, loss))
        if trainer.should_stop:
            return
        # A ratio that is negative or a logarithm falls by a thousandth of its size, too.
        fell = loss < self._best - 1e-3 * abs(self._best) if self._best < float("inf") else True
        self._best, self._checks = (loss, 0) if fell else (self._best, self._checks + 1)
        if self._checks >= self.patience and self.repeated is None:
            self._end(trainer, pl_module, LOSS)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The trainer has ended what nothing else has."""
        del trainer
        if len(self.ends) < getattr(pl_module, "phases", 1):
            self._note(STEPS)

    def _end(self, trainer: Trainer, pl_module: LightningModule, reason: str) -> None:
        self._note(reason)
        if hasattr(pl_module, "end_phase"):
            pl_module.end_phase()
        else:
            trainer.should_stop = True

    def _note(self, reason: str) -> None:
        self.ends.append(self.seen)
        self.reasons.append(reason)
        self._best, self._checks = float("inf"), 0


@torch.no_grad()
def held_back_loss(module: LightningModule, batches: DataLoader) -> float | None:
    """Mean loss of a model on batches that it does not learn from, the same draws of chance each time.

    The model stays in training mode, as many have no loss outside of it; its buffers come back to what they were.

    Args:
        module: The model. Its ``held_back_loss(batch)`` is taken, or the loss of its ``training_step``.
        batches: Batches of normal images.

    Returns:
        Mean over batches; ``None`` if the model has no such loss.
    """
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    measure = getattr(module, "held_back_loss", module.training_step)
    losses: list[float] = []
    # Seeding leaves a note in the environment, which the seed of the job has left before.
    with isolate_rng(), patch.dict(os.environ), patch.object(module, "log"), patch.object(module, "log_dict"):
        seed_everything(0, verbose=False)
        for number, batch in enumerate(ready_batches(module, batches)):
            result = measure(batch, number)
            loss = result["loss"] if isinstance(result, dict) else result
            if loss is None:
                return None
            losses.append(float(loss))
    for name, buffer in module.named_buffers():
        buffer.copy_(buffers[name])
    return sum(losses) / len(losses)


def hold_back(datamodule: AnomalibDataModule, share: float = 0.1) -> DataLoader:
    """Take a share of the normal training images out of a datamodule, and let it read each of the others once.

    Images that are augmented by chance are read each time.

    Args:
        datamodule: Is set up; its training images become fewer.
        share: Share of the images that is held back, at least one.

    Returns:
        Batches of the images that were held back.
    """
    datamodule.prepare_data()
    datamodule.setup("fit")
    datamodule._is_setup = True  # noqa: SLF001  or the trainer would read the split again
    data = datamodule.train_data
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    count = max(1, round(share * len(data)))
    held, kept = (data.subsample(sorted(part)) for part in (order[:count], order[count:]))
    datamodule.train_data = kept
    if datamodule.train_augmentations is None:
        datamodule.train_data = KeptImages(kept)  # type: ignore[assignment]
        datamodule.num_workers = 0  # What a process of its own has read, nobody else keeps.
    return DataLoader(KeptImages(held), batch_size=datamodule.train_batch_size, collate_fn=held.collate_fn)


class KeptImages(Dataset):
    """A dataset whose items are read once and kept in memory.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: AnomalibDataset) -> None:
        self.dataset = dataset
        self._items: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        """Everything else is the dataset's."""
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)

    @property
    def augmentations(self) -> Any:
        """Transform of the items; anomalib adds the resizing of the model to it."""
        return self.dataset.augmentations

    @augmentations.setter
    def augmentations(self, transform: Any) -> None:
        self.dataset.augmentations = transform
        self._items = {}

    def __len__(self) -> int:
        """Number of items."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """One item, read or kept."""
        if index not in self._items:
            self._items[index] = self.dataset[index]
        return self._items[index]
