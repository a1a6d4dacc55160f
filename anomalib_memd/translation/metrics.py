"""How good a translation is: structure, colour, and the distance of features from those of real images."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from skimage.color import deltaE_ciede2000, rgb2gray, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from anomalib_memd.models.wtngan.loss import StructureConsistencyLoss


def ssim(image: np.ndarray, other: np.ndarray) -> float:
    """SSIM of the grey values of two sRGB images in [0, 1] of shape ``(H, W, 3)``."""
    return float(structural_similarity(rgb2gray(image), rgb2gray(other), data_range=1.0))


def structure(image: np.ndarray, other: np.ndarray) -> float:
    """The structure term of SSIM alone, -1 to 1, which neither brightness nor contrast changes."""
    pair = (torch.from_numpy(x).float().permute(2, 0, 1)[None] for x in (image, other))
    return 1 - StructureConsistencyLoss()(*pair).item()


def colour_difference(image: np.ndarray, other: np.ndarray) -> float:
    """Mean CIEDE2000 difference of the pixels of two sRGB images in [0, 1] of shape ``(H, W, 3)``."""
    return float(deltaE_ciede2000(rgb2lab(image), rgb2lab(other)).mean())


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise ratio in dB of an sRGB image in [0, 1] against the truth; infinite if they are equal."""
    if np.array_equal(image, truth):
        return float("inf")
    return float(peak_signal_noise_ratio(truth, image, data_range=1.0))


def lesion_contrast(image: np.ndarray, mask: np.ndarray, ring: int = 12) -> float:
    """CIEDE2000 difference between the mean colours of a lesion and of a ring around it.

    Args:
        image: sRGB image in [0, 1] of shape ``(H, W, 3)``.
        mask: Boolean mask of the lesion, ``(H, W)``.
        ring: Width of the ring in pixels.

    Returns:
        The difference; NaN if lesion or ring is empty.
    """
    around = (distance_transform_edt(~mask) <= ring) & ~mask & (image.max(-1) > 0.06)
    if not mask.any() or not around.any():
        return float("nan")
    lab = rgb2lab(image)
    return float(deltaE_ciede2000(lab[mask].mean(0), lab[around].mean(0)))


def frechet_distance(features: np.ndarray, others: np.ndarray) -> float:
    r"""Fréchet distance of two Gaussians fitted to features (FID).

    .. math::
        \|\mu_x - \mu_y\|^2 + \mathrm{tr}\,\Sigma_x + \mathrm{tr}\,\Sigma_y - 2\,\mathrm{tr}(\Sigma_x \Sigma_y)^{1/2}

    The last trace is the nuclear norm of the product of the two centred matrices of features, which for few images
    takes no time, so that it can be bootstrapped.

    Args:
        features: Features ``(N, C)``.
        others: Features ``(M, C)``.

    Source:
        Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017.
    """
    x, y = features.astype(np.float64), others.astype(np.float64)
    x_centred, y_centred = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    cross = np.linalg.svd(x_centred @ y_centred.T, compute_uv=False).sum()
    means = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return float(means + (x_centred**2).sum() + (y_centred**2).sum() - 2 * cross)


def kernel_distance(features: np.ndarray, others: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the cubic kernel (KID), over all images at once.

    Args:
        features: Features ``(N, C)``.
        others: Features ``(M, C)``.

    Source:
        Binkowski et al., "Demystifying MMD GANs", ICLR 2018.
    """
    x, y = (z.astype(np.float64) / np.sqrt(z.shape[1]) for z in (features, others))
    inside = 0.0
    for z in (x, y):
        # An image is not compared with itself, nor with its copies in a resample.
        _, image = np.unique(z, axis=0, return_inverse=True)
        inside += ((z @ z.T + 1) ** 3)[image[:, None] != image].mean()
    return float(inside - 2 * ((x @ y.T + 1) ** 3).mean())


def bootstrap(
    measure: Callable[[np.ndarray, np.ndarray], float],
    features: np.ndarray,
    others: np.ndarray,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of a distance, over images of both sides.

    Args:
        measure: The distance.
        features: Features ``(N, C)``.
        others: Features ``(M, C)``.
        resamples: Number of draws.
        seed: Seed.
    """
    random = np.random.default_rng(seed)
    found = [measure(*(z[random.integers(len(z), size=len(z))] for z in (features, others))) for _ in range(resamples)]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
