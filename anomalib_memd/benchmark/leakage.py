"""What may make a data set look easier than the clinic: near-duplicates across splits, and trivial cues."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from kornia.filters import laplacian
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.data.reading import read_image
from anomalib_memd.data.split import read_split
from anomalib_memd.progress import track


def check_dataset(folder: Path, similarity: float = 0.95) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check a data set.

    Args:
        folder: Folder with a ``split.csv``.
        similarity: Correlation, in [-1, 1], from which two images count as near-duplicates.

    Returns:
        Pairs of near-duplicates (``image, split, other, other_split, correlation``), and cues with the image AUROC
        (``cue, auroc``) by which each separates the test images; ``all together`` is a cross-validated logistic
        regression.

    Raises:
        FileNotFoundError: If the folder has no ``split.csv``.
    """
    path = folder / "split.csv"
    if not path.exists():
        msg = f"{folder} has no split.csv; give the folder of a data set, or train on it once to have one drawn."
        raise FileNotFoundError(msg)
    split = read_split(path, None, None).reset_index(drop=True)
    thumbnails, cues = [], []
    for name in track(split.image, "Reading"):
        image = read_image(folder / name).as_subclass(torch.Tensor)
        thumbnails.append(F.interpolate(image.mean(0)[None, None], (24, 24), mode="area").flatten())
        cues.append(trivial_cues(image))
    return (
        near_duplicates(torch.stack(thumbnails), split, similarity),
        separation(pd.DataFrame(cues)[split.split == "test"], split[split.split == "test"].label != "normal"),
    )


def near_duplicates(thumbnails: torch.Tensor, split: pd.DataFrame, similarity: float) -> pd.DataFrame:
    """Pairs of images in different splits whose thumbnails correlate.

    Args:
        thumbnails: Grey thumbnails of shape ``(N, P)``.
        split: ``image`` and ``split`` of each.
        similarity: Least correlation.

    Returns:
        Columns ``image, split, other, other_split, correlation``, the most similar first.
    """
    # What all images share, such as a black corner, makes no two of them alike.
    standard = thumbnails - thumbnails.mean(0)
    standard = standard - standard.mean(1, keepdim=True)
    standard = standard / standard.norm(dim=1, keepdim=True).clamp_min(1e-9)
    correlation = standard @ standard.T
    names = split["split"].to_numpy()
    across = torch.from_numpy(names[:, None] != names[None])
    first, second = torch.nonzero(torch.triu(across & (correlation >= similarity)), as_tuple=True)
    table = pd.DataFrame(
        {
            "image": split.image.to_numpy()[first],
            "split": names[first],
            "other": split.image.to_numpy()[second],
            "other_split": names[second],
            "correlation": correlation[first, second].numpy().round(3),
        }
    )
    return table.sort_values("correlation", ascending=False, ignore_index=True)


def trivial_cues(image: torch.Tensor) -> dict[str, float]:
    """Statistics of an image that say nothing of lesions.

    Args:
        image: sRGB image in [0, 1] of shape ``(3, H, W)``.

    Returns:
        Mean colour, brightness contrast, sharpness (deviation of the Laplacian), fraction of highlights, and
        fractions of black and of painted (fully saturated) pixels, as borders and overlays have.
    """
    brightest, darkest = image.amax(0), image.amin(0)
    seen = brightest > 0.06
    tissue = image[:, seen] if seen.any() else image.flatten(1)
    red, green, blue = tissue.mean(1).tolist()
    return {
        "mean red": red,
        "mean green": green,
        "mean blue": blue,
        "contrast": tissue.mean(0).std(correction=0).item(),
        "sharpness": laplacian(image.mean(0)[None, None], 3).std().item(),
        "highlights": (darkest > 0.85).float().mean().item(),
        "black border": (~seen).float().mean().item(),
        "painted overlay": ((brightest > 0.6) & (darkest < 0.05)).float().mean().item(),
    }


def separation(cues: pd.DataFrame, abnormal: pd.Series) -> pd.DataFrame:
    """How well each cue, and all of them together, separate the classes.

    Args:
        cues: One row an image.
        abnormal: Whether it is abnormal.

    Returns:
        Columns ``cue`` and ``auroc``, the latter in [0.5, 1] but for ``all together``.
    """
    labels = abnormal.to_numpy(dtype=int)
    alone = {name: roc_auc_score(labels, values) for name, values in cues.items()}
    rows = [{"cue": name, "auroc": round(max(value, 1 - value), 3)} for name, value in alone.items()]
    folds = StratifiedKFold(min(5, int(np.bincount(labels).min())), shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    together = cross_val_predict(model, cues.to_numpy(), labels, cv=folds, method="decision_function")
    rows.append({"cue": "all together", "auroc": round(roc_auc_score(labels, together), 3)})
    return pd.DataFrame(rows)
