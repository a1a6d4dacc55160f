"""Files at addresses."""

import io

import fsspec
import numpy as np
import pytest
from PIL import Image

from anomalib_memd.inference.score import score
from anomalib_memd.inference.sources import find_files, read_frames


@pytest.fixture
def archive(judge, monkeypatch, tmp_path):
    """An archive in memory, and a model whose answers are known."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    for number, name in enumerate(("a/1.png", "a/b/2.PNG", "c/3.png")):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), 60 * number + 20, dtype=np.uint8)).save(file, "png")
        system.pipe(f"/archive/{name}", file.getvalue())
    system.pipe("/archive/c/notes.txt", b"no image")
    system.pipe("/archive/d.png", b"no image")
    judge.path = tmp_path / "model.xml"
    judge.path.write_text("model")
    monkeypatch.setattr("anomalib_memd.inference.score.load_judge", lambda _: judge)
    yield "memory://archive"
    system.store.clear()


def test_a_folder_a_file_and_a_pattern_at_an_address(archive):
    every = {"memory:///archive/a/1.png", "memory:///archive/a/b/2.PNG", "memory:///archive/c/3.png"}
    assert {name.replace("memory:///", "memory://") for name in find_files(archive)} == {
        name.replace("memory:///", "memory://") for name in every | {"memory:///archive/d.png"}
    }
    assert len(list(find_files(f"{archive}/a/1.png"))) == 1
    assert len(list(find_files(f"{archive}/**/*.png"))) == 3
    with pytest.raises(FileNotFoundError, match="no image and no video"):
        next(find_files("memory://nothing"))
    with pytest.raises(RuntimeError, match="nosuch://x: no access to it"):
        next(find_files("nosuch://x"))


def test_frames_have_the_names_of_their_addresses(archive):
    frames = {frame.name: frame for frame in read_frames(find_files(archive))}
    assert set(frames) == set(find_files(archive))
    broken = next(frame for name, frame in frames.items() if name.endswith("d.png"))
    assert broken.error.startswith(f"{broken.name}: not an image")
    assert next(frame for name, frame in frames.items() if name.endswith("3.png")).image[0, 0, 0] == 140


def test_an_archive_is_scored_and_gone_on_with(archive, judge, tmp_path, capsys):
    score(judge.path, archive, tmp_path / "out")
    whole = (tmp_path / "out/scores.csv").read_text()
    (tmp_path / "out/scores.csv").write_text("".join(whole.splitlines(keepends=True)[:3]))
    judge.seen.clear()
    score(judge.path, archive, tmp_path / "out")
    assert (tmp_path / "out/scores.csv").read_text() == whole
    assert len(judge.seen) == 2
    assert "1 abnormal, 2 normal, 1 errors" in capsys.readouterr().out


def test_a_file_that_disappears_is_an_error_of_its_own(archive, tmp_path, judge):
    names = list(find_files(archive))
    fsspec.filesystem("memory").rm("/archive/a/1.png")
    found = list(read_frames(names))
    assert len(found) == 4
    assert [frame.name for frame in found if "no access to it" in frame.error] == [names[1]]
