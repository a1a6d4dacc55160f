"""The page, in a browser without a window."""

import os
import shutil
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anomalib_memd import Modality
from anomalib_memd.inference import app as module
from anomalib_memd.inference import review
from anomalib_memd.inference.app import app, build, serve
from anomalib_memd.inference.review import Review
from tests.conftest import phantom_clip

from .conftest import RednessJudge

pytest.importorskip("gradio")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# A browser that asks for nothing by itself.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]


@pytest.fixture
def files(tmp_path):
    """Of mean redness 0.31, 0.55 and 0.86, and one that is broken."""
    for name, red in (("pale", 80), ("pink", 140), ("red", 220)):
        pixels = np.full((40, 60, 3), (red, 40, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return sorted(map(str, tmp_path.glob("*.png")))


def test_findings_are_sorted_labelled_and_counted(files, tmp_path):
    judges = [RednessJudge(), RednessJudge("other.xml", (Modality.NBI,), 0.9)]
    found = Review.of_files(files, judges, None, tmp_path)
    shown = found.gallery(0, 0.5, 0.4)
    assert [text for _, text in shown] == [
        "abnormal 0.86 WLI red.png",
        "abnormal 0.55 WLI pink.png",
        "normal 0.31 WLI pale.png",
    ]
    assert found.count(0, 0.5) == "**2 abnormal, 1 normal**, 1 could not be read"
    assert found.count(1, 0.9) == "**0 abnormal, 3 normal**, 1 could not be read"
    assert found.problems() == "- broken.png: not an image; remove it or take it out of the split."
    table = found.tabulate([0.6, 0.5])
    assert table["file"].tolist() == ["red.png", "pink.png", "pale.png", "broken.png"]
    assert table["label 1"].tolist()[:3] == ["abnormal", "normal", "normal"]
    assert table["label 2"].tolist()[:3] == ["abnormal", "abnormal", "normal"]


def test_a_picture_is_drawn_once_whatever_the_threshold_is(files, tmp_path, monkeypatch):
    found = Review.of_files(files, [RednessJudge()], None, tmp_path)
    first = found.gallery(0, 0.5, 0.4)
    monkeypatch.setattr(review, "draw_prediction", None)
    assert [path for path, _ in found.gallery(0, 0.9, 0.4)] == [path for path, _ in first]
    with zipfile.ZipFile(found.pack([0.5], 0.4)) as archive:
        assert archive.namelist()[0] == "model 1/0000 abnormal 0.86 WLI red.png.jpg"


def test_what_looks_like_the_other_modality_is_said(files, tmp_path):
    found = Review.of_files(files[:1] + files[3:], [RednessJudge()], Modality.NBI, tmp_path)
    assert "red.png looks like WLI, but was judged as NBI." in found.problems()


def test_a_clip_is_judged_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(review, "CLIP_FRAMES", 5)
    clip = phantom_clip(tmp_path / "clip.mp4", [(2.0, 0, None)], size=64)
    found = Review.of_files([clip], [RednessJudge()], None, tmp_path)
    assert [finding.name for finding in found.findings] == [f"clip.mp4 at {n * 0.4:.2f} s" for n in range(5)]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (finding,) = Review.of_files([tmp_path / "bad.mp4"], [RednessJudge()], None, tmp_path).findings
    assert "bad.mp4: cannot be opened as a video" in finding.error


def test_large_pictures_are_kept_small(tmp_path):
    Image.fromarray(np.full((1300, 700, 3), 99, dtype=np.uint8)).save(tmp_path / "a.png")
    (finding,) = Review.of_files([tmp_path / "a.png"], [RednessJudge()], None, tmp_path).findings
    assert finding.image.shape[0] == review.LARGEST


def test_the_page_is_for_this_machine_alone_unless_it_is_told_otherwise(monkeypatch):
    launched = {}
    monkeypatch.setattr(module, "load_judge", lambda _: RednessJudge())
    monkeypatch.setattr("gradio.Blocks.launch", lambda _self, **options: launched.update(options) or (None, "", ""))
    monkeypatch.setenv("GRADIO_SHARE", "True")
    app("model.xml")
    assert (launched["server_name"], launched["share"]) == ("127.0.0.1", False)
    app("model.xml", host="0.0.0.0")  # noqa: S104  as a user may
    assert (launched["server_name"], launched["share"]) == ("0.0.0.0", False)  # noqa: S104


def test_pictures_of_a_page_that_is_open_go_when_the_process_ends(tmp_path, monkeypatch):
    at_the_end = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    monkeypatch.setattr(module.atexit, "register", lambda *call, **how: at_the_end.append(partial(*call, **how)))
    build([RednessJudge()])
    (room,) = tmp_path.iterdir()
    assert room in Path(os.environ.pop("GRADIO_TEMP_DIR")).parents
    (room / "judged-1").mkdir()
    (room / "judged-1" / "patient.jpg").touch()
    for call in at_the_end:
        call()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page in a browser, and the addresses that it asked for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "shown"))
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    blocks = build([RednessJudge()])
    address = serve(blocks, wait=False)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(accept_downloads=True)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#files input[type=file]", state="attached", timeout=60_000)
        yield page
        browser.close()
    blocks.close()


def test_a_picture_is_dropped_a_heat_map_appears_and_the_slider_moves_labels(page, files, tmp_path):
    page.set_input_files("#files input[type=file]", files)
    page.wait_for_selector("#gallery-0 img", timeout=60_000)
    page.wait_for_function("document.querySelector('#count-0').innerText.includes('2 abnormal, 1 normal')")
    assert "broken.png: not an image" in page.inner_text("#problems")
    assert "abnormal 0.55 WLI pink.png" in page.inner_text("#gallery-0")
    # The map of the reddest frame is drawn over it.
    shown = page.evaluate(
        """async () => {
            const picture = document.querySelector('#gallery-0 img');
            await picture.decode();
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
            const context = canvas.getContext('2d');
            context.drawImage(picture, 0, 0);
            return Array.from(context.getImageData(30, 20, 1, 1).data);
        }"""
    )
    assert max(abs(a - b) for a, b in zip(shown, (220, 40, 30), strict=False)) > 10
    slider = page.locator("#threshold-0 input[type=number]")
    slider.fill("0.6")
    slider.press("Enter")
    page.wait_for_function("document.querySelector('#count-0').innerText.includes('1 abnormal, 2 normal')")
    page.wait_for_function("!document.querySelector('#gallery-0').innerText.includes('abnormal 0.55')")
    assert "normal 0.55 WLI pink.png" in page.inner_text("#gallery-0")
    with page.expect_download() as download:
        page.click("#csv")
    table = pd.read_csv(download.value.path())
    assert table.label.tolist()[:3] == ["abnormal", "normal", "normal"]
    assert len(list(tmp_path.glob("anomalib-memd-*/judged-*/scores.csv"))) == 1
    page.click("#modality label:has-text('nbi')")
    page.wait_for_function("document.querySelector('#problems').innerText.includes('looks like WLI')")
    page.wait_for_function("document.querySelector('#gallery-0').innerText.includes('NBI red.png')")
    assert len(list(tmp_path.glob("anomalib-memd-*/judged-*/scores.csv"))) == 1  # What was judged before is gone.
    page.click("#zip")
    page.wait_for_selector("#archive a[download]", timeout=30_000)
    assert all(url.startswith(("http://127.0.0.1", "blob:", "data:")) for url in page.asked)
    # Nothing of it stays once the page is closed.
    held = [path for path in (tmp_path / "shown").rglob("*.*") if path.suffix in {".png", ".jpg", ".zip"}]
    assert len(held) > 6
    page.close()
    patience = time.monotonic() + 60
    while any(path.exists() for path in held) or list(tmp_path.glob("anomalib-memd-*/judged-*/*.jpg")):
        assert time.monotonic() < patience, [path for path in held if path.exists()]
        time.sleep(0.2)


def test_names_of_files_are_shown_and_not_run(page, tmp_path):
    """A name may hold what a browser takes for an element."""
    folder = tmp_path / "named"
    folder.mkdir()
    trap = "<img src=x onerror='window.caught=1'>"
    Image.fromarray(np.full((40, 60, 3), 99, dtype=np.uint8)).save(folder / f"a{trap}.png")
    (folder / f"b{trap}.png").write_bytes(b"no image")
    page.set_input_files("#files input[type=file]", sorted(map(str, folder.iterdir())))
    page.wait_for_selector("#gallery-0 img", timeout=60_000)
    page.wait_for_function("document.querySelector('#problems').innerText.includes('not an image')")
    page.wait_for_timeout(500)
    assert page.evaluate("window.caught") is None
