"""Training of the teacher, then of the students, within one run of the trainer."""

import math
import time
from enum import StrEnum
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info


class Stage(StrEnum):
    """Which part of a model is in training."""

    TEACHER = "teacher"
    STUDENTS = "students"


class TwoStageTraining(Callback):
    """Lead a module through its stages: freezing, optimiser, learning rate and early stopping anew for each.

    The module must have ``start_stage(stage)``, which freezes what the stage does not train and prepares it,
    and ``configure_optimizers()`` for what the stage does train.

    Every step starts from a seed of its own, so a run that was resumed goes on as if it had not stopped.

    Args:
        epochs: Number of epochs of each stage; a stage of no epochs is left out.
        warmup: Fraction of a stage in which the learning rate rises linearly; it then falls as a cosine.
        patience: Number of validations without a better ``monitor`` after which a stage ends early; ``None``
            never ends one.
        monitor: Metrics whose mean is to rise, for each stage.
        validation_interval: Number of epochs between validations; the last epoch of a stage has one in any case.

    Raises:
        ValueError: If no stage has an epoch, or ``patience`` or ``validation_interval`` is below 1.
    """

    def __init__(
        self,
        epochs: dict[Stage, int],
        warmup: float = 0.1,
        patience: int | None = None,
        monitor: dict[Stage, list[str]] | None = None,
        validation_interval: int = 5,
    ) -> None:
        self.epochs = {stage: epochs[stage] for stage in Stage if epochs.get(stage, 0) > 0}
        if not self.epochs or validation_interval < 1 or (patience is not None and patience < 1):
            msg = (
                f"TwoStageTraining needs an epoch, and intervals of at least 1; got epochs={epochs}, "
                f"patience={patience}, validation_interval={validation_interval}."
            )
            raise ValueError(msg)
        self.warmup = warmup
        self.patience = patience
        self.monitor = monitor or {}
        self.validation_interval = validation_interval
        self.stage = next(iter(self.epochs))
        self.stage_epoch = 0
        self.best = -math.inf
        self.waited = 0
        self.seed: int | None = None
        self._base_rates: list[float] = []
        self._started = 0.0

    @property
    def description(self) -> str:
        """What runs, for the progress bar."""
        return f"{self.stage.value.capitalize()} {self.stage_epoch + 1}/{self.epochs[self.stage]}"

    @property
    def total_epochs(self) -> int:
        """Number of epochs of all stages."""
        return sum(self.epochs.values())

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands."""
        return {
            "stage": self.stage.value,
            "stage_epoch": self.stage_epoch,
            "best": self.best,
            "waited": self.waited,
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stands."""
        self.stage = Stage(state_dict["stage"])
        self.stage_epoch = state_dict["stage_epoch"]
        self.best = state_dict["best"]
        self.waited = state_dict["waited"]
        self.seed = state_dict["seed"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze before the strategy looks for parameters to train."""
        del trainer
        if stage == "fit":
            pl_module.freeze_for(self.stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Freeze for the stage of the checkpoint, before the strategy looks for parameters to train."""
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if trainer.state.fn == "fit" and state is not None:
            self.load_state_dict(state)
            pl_module.freeze_for(self.stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Enter the first stage, or the one of the checkpoint."""
        if self.seed is None:
            # Processes draw their own seeds; the first one's decides.
            self.seed = int(trainer.strategy.broadcast(torch.initial_seed() % 2**31))
        if trainer.datamodule is not None:
            trainer.datamodule.shuffle_seed = self.seed
        bar = trainer.progress_bar_callback
        if hasattr(bar, "_get_train_description"):  # Rich asks for it, TQDM is told below.
            bar._get_train_description = lambda _epoch: self.description  # noqa: SLF001
        self._enter(trainer, pl_module, resumed=self.stage_epoch > 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide whether the epoch ends with a validation."""
        del pl_module
        last = self.stage_epoch + 1 == self.epochs[self.stage]
        due = last or (self.stage_epoch + 1) % self.validation_interval == 0
        trainer.check_val_every_n_epoch = 1 if due else trainer.current_epoch + 2
        bar = trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar):
            bar.train_progress_bar.set_description(self.description)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the step and set its learning rate."""
        del batch
        step = (trainer.current_epoch * trainer.num_training_batches + batch_idx) * trainer.world_size
        torch.manual_seed(self.seed + step + trainer.global_rank)
        progress = (self.stage_epoch + batch_idx / trainer.num_training_batches) / self.epochs[self.stage]
        for group, rate in zip(trainer.optimizers[0].param_groups, self._base_rates, strict=True):
            group["lr"] = rate * warmup_and_decay(progress, self.warmup)
        pl_module.log("learning_rate", trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count validations without progress."""
        del pl_module
        values = [trainer.callback_metrics.get(name) for name in self.monitor.get(self.stage, [])]
        if trainer.state.fn != "fit" or not values or any(value is None for value in values):
            return
        score = float(sum(values) / len(values))
        self.waited = 0 if score > self.best else self.waited + 1
        self.best = max(self.best, score)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave a stage that is through."""
        # Lightning saves a checkpoint at the end of an epoch only where it expects every epoch to be validated.
        trainer.check_val_every_n_epoch = 1
        self.stage_epoch += 1
        early = self.patience is not None and self.waited >= self.patience
        if self.stage_epoch < self.epochs[self.stage] and not early:
            return
        why = f"validation has not risen for {self.waited} rounds" if early else "all epochs done"
        rank_zero_info(
            f"Stage {self.stage.value}: ended after {self.stage_epoch} epochs in "
            f"{time.monotonic() - self._started:.0f} s ({why})."
        )
        later = list(self.epochs)[list(self.epochs).index(self.stage) + 1 :]
        if not later:
            trainer.should_stop = True
            return
        self.stage, self.stage_epoch, self.best, self.waited = later[0], 0, -math.inf, 0
        pl_module.freeze_for(self.stage)
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy):
            # DDP looks for trainable parameters once, when it wraps the module, so it has to wrap it again.
            strategy.model = strategy.lightning_module
            strategy.configure_ddp()
        strategy.setup_optimizers(trainer)
        self._enter(trainer, pl_module, resumed=False)

    def _enter(self, trainer: Trainer, pl_module: LightningModule, resumed: bool) -> None:
        rank_zero_info(
            f"Stage {list(self.epochs).index(self.stage) + 1} of {len(self.epochs)}: {self.stage.value}, "
            f"{self.epochs[self.stage]} epochs{f', resumed after {self.stage_epoch}' if resumed else ''}."
        )
        self._started = time.monotonic()
        self._base_rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        torch.manual_seed(self.seed)  # All processes prepare alike.
        pl_module.start_stage(self.stage, resumed)


def warmup_and_decay(progress: float, warmup: float) -> float:
    """Factor of the learning rate: a linear rise, then a cosine to zero.

    Args:
        progress: Finished fraction of the stage, in [0, 1].
        warmup: Fraction in which it rises.

    Returns:
        Factor in [0, 1].
    """
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
