"""A data set of rendered mucosa, for a first run without any download."""

from pathlib import Path

import pandas as pd
from torchvision.transforms.v2.functional import to_pil_image

from anomalib_memd.files import written_whole
from anomalib_memd.progress import track

from .dataset import DataModality
from .kvasir import Kvasir
from .split import write_split
from .tissue import Lesion, render


class Phantom(Kvasir):
    """Rendered mucosa, normal or with polyps, erythema and ulcers, as registered pairs with masks.

    Both modalities of a frame are rendered from the same tissue, see :func:`~anomalib_memd.data.tissue.render`.
    The frames are written to ``root`` once, in the form of any other data set with a ``split.csv``.

    Args:
        root: Folder in which the data set of each size and seed gets a folder of its own.
        image_size: Height and width of the frames in pixels, equal if two are given.
        train: Number of normal training frames.
        val: Number of normal validation frames, and of abnormal ones again.
        test: Number of normal test frames, and of abnormal ones again.
        phantom_seed: Seed of the tissue.
        modality: See :class:`~anomalib_memd.data.Kvasir`.
        train_batch_size: Number of training pairs a step.
        eval_batch_size: Number of pairs a step of validation and test.
        num_workers: Number of processes that read images.

    Raises:
        ValueError: If a number of frames or the size is not positive.
    """

    def __init__(
        self,
        root: Path | str = "datasets/phantom",
        image_size: int | tuple[int, int] = 192,
        train: int = 160,
        val: int = 40,
        test: int = 60,
        phantom_seed: int = 0,
        modality: DataModality | str = DataModality.PAIRED,
        train_batch_size: int = 16,
        eval_batch_size: int = 32,
        num_workers: int = 2,
    ) -> None:
        if not isinstance(image_size, int):  # anomalib's get_datamodule makes a pair of it.
            if len(set(image_size)) != 1:
                msg = f"A phantom has square frames, got an image_size of {image_size}."
                raise ValueError(msg)
            image_size = image_size[0]
        if min(image_size, train, val, test) < 1:
            msg = (
                f"A phantom needs frames of a positive size, got {image_size} pixels and {train}, {val}, {test} frames."
            )
            raise ValueError(msg)
        folder = Path(root) / f"{image_size}px-{train}-{val}-{test}-seed{phantom_seed}"
        super().__init__(
            root=folder / "wli",
            modality=modality,
            nbi_root=folder / "nbi",
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
        )
        self.folder = folder
        self.image_size = image_size
        self.sizes = {"train": train, "val": val, "test": test}
        self.phantom_seed = phantom_seed

    @property
    def name(self) -> str:
        """Name of the data set in result paths."""
        return "Phantom"

    def prepare_data(self) -> None:
        """Render the frames, unless they are there. The folder appears only once it is complete."""
        if self.folder.exists():
            return
        rows = self._frames()
        with written_whole(self.folder) as temporary:
            for seed, row in enumerate(track(rows, "Rendering the phantom")):
                lesion = Lesion(row["class"]) if row["label"] == "abnormal" else None
                self._write(temporary, row, self.phantom_seed * 1_000_000 + seed, lesion)
            write_split(pd.DataFrame(rows), temporary / "wli" / "split.csv")

    def _frames(self) -> list[dict[str, str]]:
        rows = []
        for split, size in self.sizes.items():
            for number in range(size):
                name = f"normal/{split}-{number:04d}.png"
                rows.append({"image": name, "class": "normal", "label": "normal", "split": split, "mask": ""})
                if split != "train":
                    kind = list(Lesion)[number % len(Lesion)].value
                    name = f"{kind}/{split}-{number:04d}.png"
                    mask = f"masks/{name}"
                    rows.append({"image": name, "class": kind, "label": "abnormal", "split": split, "mask": mask})
        return rows

    def _write(self, folder: Path, row: dict[str, str], seed: int, lesion: Lesion | None) -> None:
        images, mask = render(self.image_size, seed, lesion)
        files = {folder / modality.value / row["image"]: image for modality, image in images.items()}
        if lesion is not None:
            files[folder / "wli" / row["mask"]] = mask.float()
        for path, image in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image(image).save(path)
