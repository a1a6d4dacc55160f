"""The command that compares translations of a folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn
from torchvision.transforms.v2.functional import normalize, resize

from anomalib_memd.components.backbones import BackboneError, build_backbone
from anomalib_memd.data.folder import list_images, split_off
from anomalib_memd.data.masks import read_mask
from anomalib_memd.data.reading import find_partner, read_image
from anomalib_memd.data.split import read_split
from anomalib_memd.progress import track

from . import metrics

UNTOUCHED = "untouched WLI"


def compare_translations(
    wli: Path,
    nbi: Path,
    translations: dict[str, Path],
    output: Path = Path("results/translations"),
    nbi_held_back: float = 0.0,
    split: str | None = "test",
    truth: Path | None = None,
    network: str = "resnet50.tv_in1k",
    layer: str = "layer3",
    examples: int = 20,
) -> pd.DataFrame:
    """Compare translations of the same images by structure, colour, and distance to real narrow band images.

    Writes ``images.csv`` (a row an image), ``translations.csv`` and ``examples.jpg`` to the output. Of a folder with a
    split.csv with masks, the contrast of each lesion with its surroundings is compared with that in white light.

    Args:
        wli: Folder of white light images.
        nbi: Folder of real narrow band images of other tissue.
        translations: Name and folder of each translation, parallel to that of white light.
        output: Folder of the tables and the picture.
        nbi_held_back: Compare with this share of the real images alone, that training held back.
        split: Of a folder with a split.csv, the images that are compared.
        truth: Folder of the true narrow band images, where there are such.
        network: A timm model, or ``inception`` for that of FID and KID as usual, which torch-fidelity downloads.
        layer: Its layer whose averaged features are compared.
        examples: Number of images in the picture, those with lesions first.

    Returns:
        One row a translation: SSIM, structure, CIEDE2000 (to white light), FID and KID with 95 % intervals, share of
        the lesions' contrast that is kept (median), and share of lesions that lose more than half of it; PSNR and
        CIEDE2000 to the truth.

    Raises:
        FileNotFoundError: If a folder holds no image, or a translation is missing.
        ImageReadError: If an image cannot be used; the message names it.
        BackboneError: If the network cannot be built.
    """
    paths = list_images(wli, split)
    masks = _masks(wli) if (wli / "split.csv").is_file() else {}
    kept, held_back = split_off(list_images(nbi), nbi_held_back)
    folders = {UNTOUCHED: wli} | translations
    partners = {name: [_partner(path, wli, folder) for path in paths] for name, folder in folders.items()}
    truths = [_partner(path, wli, truth) for path in paths] if truth is not None else None

    extractor = _Features(network, layer)
    real = extractor(held_back or kept)
    rows: list[dict[str, object]] = []
    images: list[pd.DataFrame] = []
    for name, files in partners.items():
        own = pd.DataFrame(
            _judge(paths[i], file, masks.get(paths[i]), truths[i] if truths else None)
            for i, file in enumerate(track(files, name))
        )
        # White light itself is the first.
        own["contrast in WLI"] = images[0]["contrast"] if images else own["contrast"]
        images.append(own.assign(translation=name))
        features = extractor(files)
        row: dict[str, object] = {"translation": name}
        for column, measure in {"FID": metrics.frechet_distance, "KID": metrics.kernel_distance}.items():
            low, high = metrics.bootstrap(measure, features, real)
            row[column] = f"{measure(features, real):.4g} ({low:.4g} to {high:.4g})"
        row |= own.drop(columns=["image", "contrast", "contrast in WLI"]).mean().round(3).to_dict()
        if own["contrast"].notna().any():
            share = (own["contrast"] / own["contrast in WLI"]).dropna()
            row |= {"contrast kept": round(share.median(), 3), "lesions lost": round((share < 0.5).mean(), 3)}
        rows.append(row)
    output.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    pd.concat(images).to_csv(output / "images.csv", index=False)
    table.to_csv(output / "translations.csv", index=False)
    _draw(_choose(paths, masks, examples), partners, paths, masks).savefig(output / "examples.jpg", dpi=100)
    return table


def _partner(path: Path, root: Path, folder: Path) -> Path:
    partner = find_partner(path, root, folder)
    if partner is None:
        msg = f"{folder} has no partner of {path}; translate the folder again, or take it out."
        raise FileNotFoundError(msg)
    return partner


def _masks(root: Path) -> dict[Path, Path]:
    rows = read_split(root / "split.csv")
    return {root / image: root / mask for image, mask in zip(rows["image"], rows["mask"], strict=True) if mask}


def _judge(source: Path, file: Path, mask: Path | None, truth: Path | None) -> dict[str, object]:
    wli, translated = _array(source), _array(file)
    row: dict[str, object] = {
        "image": str(source),
        "SSIM": metrics.ssim(translated, wli),
        "structure": metrics.structure(translated, wli),
        "CIEDE2000": metrics.colour_difference(translated, wli),
        "contrast": float("nan"),
    }
    if mask is not None:
        lesion = read_mask(mask).numpy().astype(bool)
        row["contrast"] = metrics.lesion_contrast(translated, lesion)
    if truth is not None:
        true = _array(truth)
        row["PSNR to truth"] = metrics.psnr(translated, true)
        row["CIEDE2000 to truth"] = metrics.colour_difference(translated, true)
    return row


def _array(path: Path) -> np.ndarray:
    return read_image(path).permute(1, 2, 0).numpy()


class _Features:
    """Averaged features of image files."""

    def __init__(self, network: str, layer: str) -> None:
        self.inception: nn.Module | None = None
        if network == "inception":
            from torchmetrics.image.fid import NoTrainInceptionV3  # noqa: PLC0415  needs torch-fidelity

            try:
                self.inception = NoTrainInceptionV3("inception-v3-compat", ["2048"])
            except ModuleNotFoundError as error:
                msg = "The Inception network of FID needs torch-fidelity; install it, or name a timm model as network."
                raise BackboneError(msg) from error
            return
        self.layer = layer
        self.extractor = build_backbone(network, [layer]).eval()
        config = self.extractor.feature_extractor.pretrained_cfg
        self.mean, self.std = list(config["mean"]), list(config["std"])

    @torch.inference_mode()
    def __call__(self, paths: Sequence[Path]) -> np.ndarray:
        starts = track(range(0, len(paths), 16), "Features")
        return np.concatenate([self._batch(paths[i : i + 16]) for i in starts])

    def _batch(self, paths: Sequence[Path]) -> np.ndarray:
        images = torch.stack(
            [resize(read_image(path).as_subclass(torch.Tensor), [256, 256], antialias=True) for path in paths]
        )
        if self.inception is not None:
            return self.inception((255 * images).byte()).numpy()
        features = self.extractor(normalize(images, self.mean, self.std))[self.layer]
        return features.mean((2, 3)).numpy()


def _choose(paths: Sequence[Path], masks: dict[Path, Path], number: int) -> list[int]:
    """Images with lesions first; of each kind evenly spaced."""
    lesions = [i for i, path in enumerate(paths) if path in masks] or list(range(len(paths)))
    return [lesions[round(i)] for i in np.linspace(0, len(lesions) - 1, min(number, len(lesions)))]


def _draw(
    chosen: Sequence[int], partners: dict[str, list[Path]], paths: Sequence[Path], masks: dict[Path, Path]
) -> Figure:
    """One row a translation and its white light, two images side by side in each of the columns."""
    columns = 10
    groups: Iterable[Sequence[int]] = [chosen[i : i + columns] for i in range(0, len(chosen), columns)]
    rows = [(group, name) for group in groups for name in partners]
    figure = Figure(figsize=(1.5 * columns, 1.35 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (group, name) in zip(axes, rows, strict=True):
        for axis in line:
            axis.axis("off")
        for axis, i in zip(line, group, strict=False):
            axis.imshow(_array(partners[name][i]))
            if paths[i] in masks:
                axis.contour(read_mask(masks[paths[i]]).numpy(), [0.5], colors="white", linewidths=0.5)
        line[0].set_title(name, fontsize=8, loc="left")
    return figure
