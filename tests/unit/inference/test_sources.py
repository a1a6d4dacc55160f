"""Where frames come from."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_memd.inference.sources import ahead, find_files, read_frames
from tests.conftest import phantom_clip


def write(path, grey=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), grey, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a/ä ö.JPG", "a/deep/c.tiff", ".hidden/x.png"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


def names(folder, found):
    return [Path(path).relative_to(folder).as_posix() for path in found]


def test_a_folder_gives_its_files_in_the_order_of_names(folder):
    assert names(folder, find_files(folder)) == ["a/deep/c.tiff", "a/ä ö.JPG", "b.png", "broken.png"]


def test_a_link_that_leads_back_up_is_not_followed(folder):
    (folder / "a" / "up").symlink_to(folder)
    assert names(folder, find_files(folder)) == ["a/deep/c.tiff", "a/ä ö.JPG", "b.png", "broken.png"]


def test_a_file_and_a_pattern_are_sources_too(folder):
    assert names(folder, find_files(folder / "b.png")) == ["b.png"]
    assert names(folder, find_files(f"{folder}/**/*.tiff")) == ["a/deep/c.tiff"]
    for absent in (folder / "none", f"{folder}/*.gif", folder / "empty"):
        (folder / "empty").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match="no image and no video there"):
            next(find_files(absent))


def test_a_folder_is_listed_no_sooner_than_needed(folder, monkeypatch):
    listed = []
    scandir = __import__("os").scandir
    monkeypatch.setattr("os.scandir", lambda path: listed.append(path) or scandir(path))
    next(find_files(folder))
    assert [path.name for path in listed] == [folder.name, "a", "deep"]


def test_each_file_is_read_once_and_those_that_are_done_never(folder, monkeypatch):
    read = []
    opened = Image.open
    monkeypatch.setattr("PIL.Image.open", lambda path, *a, **k: read.append(path) or opened(path, *a, **k))
    frames = list(read_frames(find_files(folder), lambda name: name.endswith("b.png")))
    assert sorted(map(str, read)) == sorted(frame.name for frame in frames)
    assert not any(name.endswith("b.png") for name in map(str, read))
    broken = [frame for frame in frames if frame.image is None]
    assert [frame.name for frame in broken] == [str(folder / "broken.png")]
    assert "not an image" in broken[0].error


def test_a_video_gives_its_frames_by_number(tmp_path):
    clip = phantom_clip(tmp_path / "clip.mp4", [(0.5, 0, None)], size=64)
    frames = list(read_frames([clip], lambda name: name.endswith("#1")))
    assert [frame.name for frame in frames] == [f"{clip}#{n}" for n in (0, 2, 3, 4)]
    assert frames[0].image.shape == (64, 64, 3)


def test_a_damaged_video_gives_an_error(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    (frame,) = read_frames([tmp_path / "clip.mp4"])
    assert frame.image is None
    assert "clip.mp4: cannot be opened as a video" in frame.error


def test_items_are_drawn_ahead_in_order_and_errors_are_passed_on():
    def items():
        yield from range(50)
        msg = "gone"
        raise OSError(msg)

    drawn = ahead(items(), 4)
    assert [next(drawn) for _ in range(50)] == list(range(50))
    with pytest.raises(OSError, match="gone"):
        next(drawn)


def test_no_thread_stays_when_nobody_asks_any_more():
    before = threading.active_count()
    drawn = ahead(iter(range(1000)), 2)
    next(drawn)
    drawn.close()
    assert threading.active_count() == before
