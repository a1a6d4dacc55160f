"""Keeping back what other libraries say and a user cannot act on."""

import logging
import warnings

WARNINGS = (
    "Importing from timm.models.layers is deprecated",
    "The anomalib.models.components.dinov2 package is deprecated",
    r".*isinstance\(treespec, LeafSpec\)",
    "Trying to infer the `batch_size` from an ambiguous collection",
    "You called `self.log",
    r"Found \d+ module\(s\) in eval mode at the start of training",
    "The number of training batches",
    r"The '\w+' does not have many workers",
    "The dirpath has changed from",
    "LightningCLI's args parameter",
    "Checkpoint directory .* exists and is not empty",
)
"""How these warnings begin."""
LINES = (
    "\U0001f4a1 Tip:",
    "The following callbacks returned in `LightningModule.configure_callbacks`",
    "GPU available",
    "TPU available",
    "HPU available",
    "`Trainer(",
)
"""How these lines of the logs begin."""


class _Kept(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(LINES)


def keep_quiet() -> None:
    """Keep them back in this process. Errors, and warnings that are not listed, are shown."""
    for beginning in WARNINGS:
        warnings.filterwarnings("ignore", beginning)
    # What one process of several says is said by the logger of whichever of these packages was imported last.
    for package in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logging.getLogger(f"{package}.utilities.rank_zero").addFilter(_Kept())
    logging.getLogger("timm").setLevel(logging.WARNING)  # It lists every weight that a model does not use.
    # It misses abnormal images; the datamodule says what that means.
    logging.getLogger("anomalib.metrics.threshold.f1_adaptive_threshold").setLevel(logging.ERROR)
