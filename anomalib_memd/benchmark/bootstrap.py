"""Image metrics on resampled images."""

import numpy as np


def bootstrap_auroc(labels: np.ndarray, scores: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """AUROC on resampled images, normal and abnormal ones by themselves.

    The same seed draws the same images, so the difference of two detectors can be taken draw by draw.

    Args:
        labels: 0 or 1, shape ``(N,)``.
        scores: Shape ``(N,)``, or ``(S, N)`` for several seeds, whose AUROC is averaged.
        draws: Number of draws.
        seed: Seed of the draws.

    Returns:
        Shape ``(draws,)``.
    """
    times = times_drawn(labels, draws, seed)
    positive, negative = times[:, labels == 1], times[:, labels == 0]
    total = np.zeros(draws)
    rows = np.atleast_2d(scores)
    for row in rows:
        # The AUROC is the share of pairs in which the abnormal image scores higher; a tie counts half.
        difference = row[labels == 1][:, None] - row[labels == 0][None]
        wins = (difference > 0) + 0.5 * (difference == 0)
        total += ((positive @ wins) * negative).sum(1) / wins.size
    return total / len(rows)


def bootstrap_ap(labels: np.ndarray, scores: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Average precision on the same resampled images, see :func:`bootstrap_auroc`."""
    times = times_drawn(labels, draws, seed)
    total = np.zeros(draws)
    rows = np.atleast_2d(scores)
    for row in rows:
        order = np.argsort(-row)
        last = np.flatnonzero(np.diff(row[order], append=np.nan))  # Images with one score enter together.
        found = (times[:, order] * labels[order]).cumsum(1)[:, last]
        taken = np.maximum(times[:, order].cumsum(1)[:, last], 1)
        total += (np.diff(found, prepend=0) * found / taken).sum(1) / found[:, -1]
    return total / len(rows)


def times_drawn(labels: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each draw has each image, shape ``(draws, N)``: as many abnormal and normal images as there are."""
    random = np.random.default_rng(seed)
    times = np.zeros((draws, len(labels)))
    for label in (1, 0):
        index = np.flatnonzero(labels == label)
        times[:, index] = random.multinomial(len(index), np.full(len(index), 1 / len(index)), size=draws)
    return times


BOOTSTRAPS = {"auroc": bootstrap_auroc, "ap": bootstrap_ap}
