"""ISIC 2017 and 2018."""

import http.server
import threading
import zipfile
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anomalib_memd import SkinLesion
from anomalib_memd.data import SplitError
from anomalib_memd.data.skin_lesion import PARTS


def challenge(root, year, masks=True):
    """The folders of a challenge with two images in each part."""
    for images, truth in PARTS[year].values():
        for folder in (images, truth):
            (root / folder).mkdir(parents=True)
        for number in range(2):
            name = f"ISIC_{len(images)}{number}"
            Image.fromarray(np.full((8, 10, 3), 90 + number, dtype=np.uint8)).save(root / images / f"{name}.jpg")
            (root / images / f"{name}_superpixels.png").write_bytes(b"")
            if masks:
                mask = np.zeros((8, 10), dtype=np.uint8)
                mask[2:5, 3:6] = 255
                Image.fromarray(mask).save(root / truth / f"{name}_segmentation.png")
    return root


@pytest.mark.parametrize("year", PARTS)
def test_a_folder_of_a_challenge_is_read(tmp_path, year):
    data = SkinLesion(root=challenge(tmp_path / "isic", year), year=year, num_workers=0)
    data.prepare_data()
    data.setup()
    assert [len(x) for x in (data.train_data, data.val_data, data.test_data)] == [2, 2, 2]
    item = data.train_data[0]
    assert item.text == "An image of the skin. It was taken with a dermoscope."
    assert int(item.gt_mask.sum()) == 9
    data.prepare_data()  # The table is there: nothing is done.


def test_tables_of_2017_say_more(tmp_path):
    root = challenge(tmp_path / "isic", 2017)
    images, truth = PARTS[2017]["train"]
    names = [file.stem for file in sorted((root / images).glob("*.jpg"))]
    pd.DataFrame({"image_id": names, "melanoma": [1.0, 0.0], "seborrheic_keratosis": [0.0, 0.0]}).to_csv(
        root / f"{truth.replace('Part1', 'Part3')}.csv", index=False
    )
    pd.DataFrame({"image_id": names, "age_approximate": ["55", "unknown"], "sex": ["female", "male"]}).to_csv(
        root / images / f"{images}_metadata.csv", index=False
    )
    data = SkinLesion(root=root, year=2017, text_sections=["before", "record"])
    data.prepare_data()
    data.setup()
    before = "An image of the skin. It was taken with a dermoscope."
    assert data.train_data.texts == [
        f"{before} The patient is 55 years old. The finding is melanoma.",
        f"{before} The finding is nevus.",
    ]


def test_an_image_without_a_mask_is_an_error_that_names_it(tmp_path):
    root = challenge(tmp_path / "isic", 2018, masks=False)
    with pytest.raises(SplitError, match=r"ISIC_\d+\.jpg has no mask"):
        SkinLesion(root=root).prepare_data()
    assert not (root / "split.csv").exists()


def test_a_year_without_a_challenge_is_an_error():
    with pytest.raises(ValueError, match="2016"):
        SkinLesion(year=2016)


def test_what_is_missing_is_fetched(tmp_path):
    source = challenge(tmp_path / "source", 2018)
    served = tmp_path / "served" / "2018"
    served.mkdir(parents=True)
    for folder in (name for pair in PARTS[2018].values() for name in pair):
        with zipfile.ZipFile(served / f"{folder}.zip", "w") as archive:
            for file in (source / folder).iterdir():
                archive.write(file, f"{folder}/{file.name}")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        data = SkinLesion(root=tmp_path / "isic", url=f"http://127.0.0.1:{server.server_address[1]}")
        data.prepare_data()
        server.shutdown()
    data.setup()
    assert len(data.train_data) == 2
    assert not list((tmp_path / "isic").glob("*.zip"))
