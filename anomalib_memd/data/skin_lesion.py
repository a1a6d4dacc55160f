"""Dermoscopic images of skin lesions with masks: ISIC 2017 and 2018."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from .download import download_archive, unpack_archive
from .labelled import Segmentation
from .split import SplitError, read_table, write_split

URL = "https://isic-challenge-data.s3.amazonaws.com"
"""Where the archives of the challenges are."""

PARTS = {
    2017: {
        "train": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        "val": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
        "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
    },
    2018: {
        "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
        "val": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
        "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
    },
}
"""Folders of images and of masks, by year and split."""

DIAGNOSES = ("melanoma", "seborrheic_keratosis")
"""Columns of the tables of diagnoses, 2017; a lesion that is neither is a nevus."""


class SkinLesion(Segmentation):
    """Skin lesions of the ISIC challenge of 2017 or 2018. Every image has a lesion and a mask of it.

    ``root`` holds the folders of the challenge as its archives unpack. Those that are missing are downloaded; an
    interrupted download goes on where it stopped. The table of all is written to ``root/split.csv`` once. Where tables
    of diagnoses or metadata of 2017 are there, its columns ``class``, ``age`` and ``sex`` come from them.

    Args:
        root: Folder of the data set.
        year: 2017 or 2018.
        metadata: See :class:`.Segmentation`.
        url: Address of the archives.
        **options: Options of :class:`.Segmentation`.

    Raises:
        ValueError: If there was no such challenge.

    Source:
        Codella et al., "Skin Lesion Analysis Toward Melanoma Detection: A Challenge at ISBI 2017", ISBI 2018; Codella
        et al., "Skin Lesion Analysis Toward Melanoma Detection 2018", 2019.
    """

    def __init__(
        self,
        root: Path | str = "datasets/isic-2018",
        year: int = 2018,
        metadata: Mapping[str, str] | None = None,
        url: str = URL,
        **options: Any,
    ) -> None:
        if year not in PARTS:
            msg = f"year is one of {', '.join(map(str, PARTS))}, got {year}."
            raise ValueError(msg)
        known = {"organ": "skin", "device": "a dermoscope"} | dict(metadata or {})
        super().__init__(root=root, metadata=known, url=url, **options)
        self.year = year

    def prepare_data(self) -> None:
        """Fetch what is missing, and write the table.

        Raises:
            DownloadError: If an archive cannot be fetched, or is damaged.
            SplitError: If an image has no mask.
        """
        if self.split_path.exists():
            return
        for folder in (name for pair in PARTS[self.year].values() for name in pair):
            if not (self.root / folder).is_dir():
                url = f"{self.url}/{self.year}/{folder}.zip"
                archive = download_archive(url, self.root / f"{folder}.zip")
                unpack_archive(archive, self.root / folder)
                archive.unlink()
        rows = [row for split in PARTS[self.year] for row in self._rows(split)]
        write_split(pd.DataFrame(rows), self.split_path)
        rank_zero_info(f"{self.root}: {len(rows)} images of skin lesions.")

    def _rows(self, split: str) -> list[dict[str, str]]:
        images, masks = PARTS[self.year][split]
        facts = self._facts(split)
        rows = []
        for file in sorted((self.root / images).glob("ISIC_*.jpg")):
            mask = f"{masks}/{file.stem}_segmentation.png"
            if not (self.root / mask).is_file():
                msg = f"{file} has no mask {self.root / mask}; complete the folder, or remove it to fetch it again."
                raise SplitError(msg)
            row = {"image": f"{images}/{file.name}", "class": "lesion", "label": "abnormal", "split": split}
            rows.append(row | {"mask": mask, "age": "", "sex": ""} | facts.get(file.stem, {}))
        if not rows:
            msg = f"{self.root / images} holds no image ISIC_*.jpg; remove the folder to fetch it again."
            raise SplitError(msg)
        return rows

    def _facts(self, split: str) -> dict[str, dict[str, str]]:
        """What tables of 2017 say of images: their diagnoses, and the age and sex of the patient."""
        images, masks = PARTS[self.year][split]
        facts: dict[str, dict[str, str]] = {}
        diagnoses = self.root / f"{masks.replace('Part1', 'Part3')}.csv"
        if diagnoses.is_file():
            table = read_table(diagnoses)
            for row in table.to_dict("records"):
                found = [name for name in DIAGNOSES if name in row and float(row[name])]
                facts.setdefault(row["image_id"], {})["class"] = found[0] if found else "nevus"
        metadata = self.root / images / f"{images}_metadata.csv"
        if metadata.is_file():
            for row in read_table(metadata).to_dict("records"):
                age = row.get("age_approximate", "")
                known = {"age": age if age.isdigit() else "", "sex": row.get("sex", "")}
                facts.setdefault(row["image_id"], {}).update(known)
        return facts
