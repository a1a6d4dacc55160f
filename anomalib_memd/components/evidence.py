"""Pieces of evidence on an image: each on the scale of normal images, and all of them weighed."""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from .statistics import ChannelStandardization

ENOUGH = 30
"""From how many labelled normal images on these tell the scale of evidence; that of fewer is too uncertain."""


class WeighedEvidence(nn.Module):
    """Log odds of an image from a few pieces of evidence, each in its own deviations among normal images.

    Before :meth:`fit_weights` all weigh the same.

    Args:
        pieces: Number of pieces.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.standardize = ChannelStandardization(pieces)
        self.register_buffer("weight", torch.full((pieces,), 0.5))
        self.register_buffer("bias", torch.zeros(()))
        self.weight: torch.Tensor
        self.bias: torch.Tensor

    def forward(self, evidence: torch.Tensor) -> torch.Tensor:
        """Log odds ``(B,)`` of evidence ``(B, pieces)``."""
        return (self.standardize(evidence) * self.weight).sum(1) + self.bias

    def calibrate(self, normal: torch.Tensor) -> None:
        """Take over mean and deviation of the evidence on normal images, ``(N, pieces)``."""
        self.standardize.fit(normal.mean(0), normal.std(0, correction=0))

    @torch.no_grad()
    def fit_weights(self, evidence: torch.Tensor, abnormal: torch.Tensor, prior: float) -> None:
        """Let labelled images decide what each piece weighs: logistic regression, drawn toward equal weights.

        If enough of them are normal, they tell the scale as well: nothing was fitted to them, and no other frame of
        their videos was trained on. Nothing changes unless there are images of either kind.

        Args:
            evidence: Of normal and abnormal images, ``(N, pieces)``.
            abnormal: Which of them are abnormal, ``(N,)``.
            prior: How strongly weights are drawn toward their mean. It stands against the sum over images.
        """
        if not 0 < int(abnormal.sum()) < len(abnormal):
            return
        if int((~abnormal).sum()) >= ENOUGH:
            self.calibrate(evidence[~abnormal])
        scaled = self.standardize(evidence).cpu().double().numpy()
        sign = 2.0 * abnormal.cpu().numpy() - 1

        def loss(values: np.ndarray) -> float:
            weight, odds = values[:-1], scaled @ values[:-1] + values[-1]
            spread = prior * np.square(weight - weight.mean()).sum()
            # Images that are told apart without error would have infinite weights.
            return np.logaddexp(0, -sign * odds).sum() + spread + 0.1 * np.square(weight.mean() - 0.5)

        start = np.append(np.full(scaled.shape[1], 0.5), 0.0)
        found = minimize(loss, start, bounds=[(0, None)] * scaled.shape[1] + [(None, None)]).x
        self.weight.copy_(torch.from_numpy(found[:-1]))
        self.bias.copy_(torch.tensor(found[-1]))

    @torch.no_grad()
    def move_half_way_to_equal(self) -> None:
        """Bring each weight half-way to the mean of all, for images of which none is labelled."""
        self.weight.copy_((self.weight + self.weight.mean()) / 2)
