"""What a run says: how far it is where there is no terminal, and in the end where everything lies."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from anomalib_memd import progress
from anomalib_memd.files import written_whole
from anomalib_memd.version import __version__

COMMANDS = ("train", "fit", "test")
"""Commands of ``anomalib`` and ``anomalib-memd`` after which the next ones are told."""


class Narration(Callback):
    """Tell on a line an epoch, and every half minute in between, how far a run is; write ``metrics.json``.

    Lines are for a run without a terminal, which has no progress bar that anybody could see.

    Args:
        next_commands: Commands to go on with; ``CKPT`` stands for the checkpoint.
    """

    def __init__(self, next_commands: tuple[str, ...] = ()) -> None:
        self.next_commands = next_commands
        self._started = self._epoch_started = self._told = 0.0
        self._stage = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember when a training, a test or a prediction started."""
        del trainer, pl_module
        self._started = self._epoch_started = self._told = time.monotonic()

    on_test_start = on_predict_start = on_train_start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the start and the stage; at the end of its last epoch it is the next one already."""
        del trainer
        self._epoch_started = time.monotonic()
        stage = getattr(getattr(pl_module, "stage", None), "value", "")
        self._stage = f"Stage {stage}" if stage else ""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Tell how far an epoch is."""
        del pl_module, args
        total = trainer.num_training_batches
        self._tell(trainer, f"Training, epoch {trainer.current_epoch + 1}", trainer.fit_loop.batch_idx + 1, total)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the losses of an epoch, and how long the others will take."""
        del pl_module
        done, total = trainer.current_epoch + 1, trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        losses = [f"{name} {float(value):.4g}" for name, value in trainer.callback_metrics.items() if "loss" in name]
        told = progress.line("Epochs", done, total, time.monotonic() - self._started)
        self._say(trainer, ", ".join(part for part in (self._stage, *losses, told) if part))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Tell how far a test is."""
        del pl_module, outputs, batch, args
        self._tell(trainer, "Test", batch_idx + 1, sum(trainer.num_test_batches))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Tell how far a prediction is."""
        del pl_module, outputs, batch, args
        self._tell(trainer, "Prediction", batch_idx + 1, sum(trainer.num_predict_batches))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the metrics beside the pictures, and tell where everything lies and what may come next."""
        folder = Path(trainer.default_root_dir)
        saved = getattr(trainer.checkpoint_callback, "best_model_path", "")
        checkpoint = str(trainer.ckpt_path or saved)
        if not trainer.is_global_zero:
            return
        write_metrics(trainer, type(pl_module).__name__, checkpoint, folder / "metrics.json")
        program, *command = sys.argv
        if Path(program).stem not in {"anomalib", "anomalib-memd"} or not set(command[:1]) & set(COMMANDS):
            return
        lines = [f"Metrics: {folder / 'metrics.json'}"]
        if (folder / "images").is_dir():
            lines.append(f"Pictures: {folder / 'images'}")
        if checkpoint:
            lines.append(f"Checkpoint: {checkpoint}")
            lines += ["Next, for example:", *(f"  {c.replace('CKPT', checkpoint)}" for c in self.next_commands)]
        rank_zero_info("\n".join(lines))

    def _tell(self, trainer: Trainer, what: str, done: int, total: float) -> None:
        now = time.monotonic()
        if now - self._told >= progress.EVERY:
            self._told = now
            known = int(total) if total < float("inf") else None
            self._say(trainer, progress.line(what, done, known, now - self._epoch_started))

    @staticmethod
    def _say(trainer: Trainer, text: str) -> None:
        if not sys.stderr.isatty() and trainer.is_global_zero:
            rank_zero_info(text)


@rank_zero_only
def write_metrics(trainer: Trainer, model: str, checkpoint: str, path: Path) -> None:
    """Write the metrics of a test.

    Args:
        trainer: Trainer that has tested.
        model: Name of the model.
        checkpoint: What was tested; empty if it was not loaded from a file.
        path: The file, JSON.
    """
    content = {
        "model": model,
        "dataset": getattr(getattr(trainer, "datamodule", None), "name", ""),
        "checkpoint": checkpoint,
        "version": __version__,
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items() if "loss" not in name},
    }
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
