"""Areas under curves over all pixels of a test set, counted batch by batch.

Anomalib's own keep every pixel and sort them all at the end: the time of a third of a test, and more memory with each
image. These count how many pixels have which score, which takes the same memory for any number of images.
"""

from typing import Any

import numpy as np
import torch
from anomalib.metrics import AnomalibMetric
from scipy import ndimage
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

DROPPED_BITS = 12
"""Scores that differ in the last 12 of 32 bits alone count as equal: 2048 steps from a power of two to the next."""

BINS = 2 ** (32 - DROPPED_BITS)

TOUCHING = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
"""Pixels of one region: they touch at a side or a corner, within an image."""


class _Counted(Metric):
    """Counts of normal pixels by score, and of what a subclass counts of the abnormal ones."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    # Lists of one tensor each, so that nothing is held before there are masks. Gathered, they have one a process.
    normal: list[torch.Tensor]
    abnormal: list[torch.Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("normal", [], dist_reduce_fx="cat")
        self.add_state("abnormal", [], dist_reduce_fx="cat")

    def _add(self, preds: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor | None = None) -> None:
        bins = _bins(preds)
        for state, selected, of in ((self.normal, ~mask, None), (self.abnormal, mask, weight)):
            counts = torch.bincount(bins[selected], of, minlength=BINS).to(preds.device)
            state[:] = [state[0].to(preds.device) + counts if state else counts]

    def _curve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of what is normal and of what is abnormal above each threshold, from the highest on."""
        curves = []
        for state in (self.normal, self.abnormal):
            counts = dim_zero_cat(state).cpu().double().reshape(-1, BINS).sum(0)
            above = torch.cat([torch.zeros(1), counts.flip(0).cumsum(0)])
            curves.append(above / above[-1] if above[-1] else above)
        return curves[0], curves[1]


class _AUROC(_Counted):
    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self._add(preds, _plain(target).flatten().bool())

    def compute(self) -> torch.Tensor:
        rate, found = self._curve()
        return torch.trapezoid(found, rate).float()


class _AUPRO(_Counted):
    fpr_limit: torch.Tensor

    def __init__(self, fpr_limit: float = 0.3, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("fpr_limit", torch.tensor(fpr_limit))  # As in anomalib's, whose checkpoints hold it.

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        masks = _plain(target).reshape(-1, *target.shape[-2:]).bool()
        regions = torch.from_numpy(ndimage.label(masks.numpy(), TOUCHING)[0]).flatten()
        mask = regions > 0
        regions = regions[mask]
        self._add(preds, mask, 1 / torch.bincount(regions)[regions])

    def compute(self) -> torch.Tensor:
        rate, overlap = self._curve()
        limit = self.fpr_limit.cpu().double()
        step = int(torch.searchsorted(rate, limit))
        if step == len(rate):  # Nothing is normal.
            return torch.tensor(0.0)
        part = (limit - rate[step - 1]) / (rate[step] - rate[step - 1])
        overlap[step] = torch.lerp(overlap[step - 1], overlap[step], part)
        rate[step] = limit
        return (torch.trapezoid(overlap[: step + 1], rate[: step + 1]) / limit).float()


class AUROC(AnomalibMetric, _AUROC):  # type: ignore[misc]
    """Area under the receiver operating characteristic of all pixels.

    It equals that of scores cut to their first 20 bits; equal scores count half, as always.
    """


class AUPRO(AnomalibMetric, _AUPRO):  # type: ignore[misc]
    """Area under the curve of overlap by region (PRO) up to a false positive rate, divided by that rate.

    Bergmann et al., "Uninformed Students", CVPR 2020. It equals anomalib's for scores cut to their first 20 bits.

    Args:
        fpr_limit: Highest false positive rate, 0.3 by default.
    """


def pixel_areas(prefix: str = "") -> list[AnomalibMetric]:
    """Areas under curves of ``anomaly_map`` and ``gt_mask``: AUROC and AUPRO.

    Args:
        prefix: What stands before ``pixel_AUROC`` and ``pixel_AUPRO``.
    """
    return [kind(["anomaly_map", "gt_mask"], f"{prefix}pixel_", strict=False) for kind in (AUROC, AUPRO)]


def _plain(values: torch.Tensor) -> torch.Tensor:
    return values.detach().as_subclass(torch.Tensor).cpu()


def _bins(scores: torch.Tensor) -> torch.Tensor:
    """Numbers of bins in the order of the scores, whatever their range."""
    bits = (_plain(scores).flatten().float() + 0.0).view(torch.int32)  # -0 becomes 0.
    # The bits of a fraction are ordered as the fraction is, but for those below 0, whose order is the reverse.
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered >> DROPPED_BITS).long() + BINS // 2
