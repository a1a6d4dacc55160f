"""Videos: events and when they are, what is left out, live sources, and what is written."""

import itertools
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from anomalib_memd import Modality
from anomalib_memd.data.tissue import Lesion, render
from anomalib_memd.deployment.stream import FramePrediction
from anomalib_memd.inference import video as module
from anomalib_memd.inference import video_report
from anomalib_memd.inference.events import EventFinder, TimedFrame, smooth
from anomalib_memd.inference.quality import Defect, find_defect
from anomalib_memd.inference.video import video
from anomalib_memd.inference.video_file import LiveFrames, VideoError, VideoWriter, frame_rate, read_video
from tests.conftest import phantom_clip

pytest.importorskip("av")
BLANK = np.zeros((2, 2, 3), dtype=np.uint8)


def timed(scores, rate=10.0):
    """Frames with scores; ``None`` is a frame that was left out."""
    for number, value in enumerate(scores):
        left_out = value is None
        found = (
            None if left_out else FramePrediction(value, value >= 0.5, np.zeros((1, 1)), np.zeros((1, 1), dtype=bool))
        )
        yield TimedFrame(number, number / rate, BLANK, Defect.DARK if left_out else None, found)


def events_of(scores, gap=0.3, shortest=0.2, smoothing=0.0, rate=10.0):
    finder = EventFinder(0.5, gap, shortest)
    found = [finder.add(frame) for frame in smooth(timed(scores, rate), smoothing)]
    return [event for event in [*found, finder.finish()] if event is not None]


def test_an_event_is_as_long_as_scores_are_high_and_has_its_best_frame():
    (event,) = events_of([0.1, 0.1, 0.6, 0.9, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert (event.start, event.end, event.best.number) == (0.2, 0.4, 3)


def test_short_gaps_join_and_short_events_are_none():
    assert len(events_of([0.6] * 4 + [0.1] * 2 + [0.6] * 4)) == 1
    assert len(events_of([0.6] * 4 + [0.1] * 6 + [0.6] * 4)) == 2
    assert not events_of([0.1, 0.9, 0.9, 0.1])


def test_frames_that_were_left_out_end_no_event_before_the_gap():
    (event,) = events_of([0.6, 0.6, None, None, 0.6, 0.6])
    assert (event.start, event.end) == (0.0, 0.5)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=40), st.floats(0, 1.5))
@example([None, None, None, 1.0, None, None, None, None, 0.0], 1.0)  # 0.8 - 0.5 is more than 0.3, but 0.8 - 0.3 is 0.5.
def test_smoothing_is_the_mean_over_a_window_around_each_frame(scores, seconds):
    frames = list(smooth(timed(scores), seconds))
    assert [frame.number for frame in frames] == list(range(len(scores)))
    for frame in frames:
        if scores[frame.number] is None:
            assert np.isnan(frame.smoothed)
            continue
        near = [x for n, x in enumerate(scores) if x is not None and abs(n / 10 - frame.second) <= seconds / 2]
        assert frame.smoothed == pytest.approx(np.mean(near))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1), st.floats(0, 0.6))
def test_events_cover_the_abnormal_frames_and_do_not_touch(scores, gap, shortest):
    events = events_of(scores, gap, shortest)
    for event in events:
        assert event.end - event.start >= shortest - 1e-9
        assert event.best.smoothed == max(x for n, x in enumerate(scores) if event.start <= n / 10 <= event.end)
    for first, second in itertools.pairwise(events):
        assert second.start - first.end > gap
    if shortest == 0:
        covered = [any(e.start <= n / 10 <= e.end for e in events) for n in range(len(scores))]
        assert all(inside for inside, value in zip(covered, scores, strict=True) if value >= 0.5)


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("lesion", [None, *Lesion])
def test_tissue_is_not_left_out_but_what_hides_it_is(modality, lesion):
    for seed in range(4):
        image = (render(192, seed, lesion)[0][modality].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        assert find_defect(image) is None
        assert find_defect((image * 0.1).astype(np.uint8)) is Defect.DARK
        assert find_defect(np.repeat(image.mean(-1, keepdims=True), 3, -1).astype(np.uint8)) is Defect.OUTSIDE
        blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(4)))
        assert find_defect(blurred) is Defect.BLURRED
    assert find_defect(np.full((8, 8, 3), 255, dtype=np.uint8)) is Defect.OUTSIDE


def test_what_is_written_is_read_again(tmp_path):
    frames = [np.full((33, 47, 3), 40 * n, dtype=np.uint8) for n in range(6)]
    writer = VideoWriter(tmp_path / "a.mp4", 12.5)
    for number, image in enumerate(frames):
        writer.write(number / 12.5, image)
    writer.close()
    found = list(read_video(tmp_path / "a.mp4"))
    assert [second for second, _ in found] == pytest.approx([n / 12.5 for n in range(6)], abs=2e-3)
    assert found[0][1].shape == (32, 46, 3)
    for (_, image), expected in zip(found, frames, strict=True):
        assert np.abs(image.astype(int) - expected[:32, :46]).max() <= 4
    assert frame_rate(tmp_path / "a.mp4") == pytest.approx(12.5, rel=0.3)


@pytest.fixture
def clip(tmp_path):
    """Two seconds of tissue that is not red, one and a half that are, then normal ones and dark ones."""
    writer = VideoWriter(tmp_path / "clip.mp4", 10)
    for number in range(60):
        red = 20 <= number < 35
        image = np.random.default_rng(number).integers(0, 60, (32, 48, 3), dtype=np.uint8) + 60
        image[..., 0] = 250 if red else 110
        writer.write(number / 10, image // 10 if number >= 50 else image)
    writer.close()
    return tmp_path / "clip.mp4"


@pytest.fixture
def known(monkeypatch, judge):
    monkeypatch.setattr(module, "load_judge", lambda _: judge)
    return judge


def test_events_are_found_when_they_are(clip, known, tmp_path, capsys):
    video("model.xml", str(clip), tmp_path / "out")
    (event,) = pd.read_csv(tmp_path / "out" / "events.csv").itertuples()
    assert event.start == pytest.approx(2.0, abs=0.11)
    assert event.end == pytest.approx(3.4, abs=0.11)
    frames = pd.read_csv(tmp_path / "out" / "frames.csv")
    assert len(frames) == 60
    assert (frames.left_out[50:] == "dark").all()
    assert frames.score[50:].isna().all()
    assert frames.left_out[:50].isna().all()
    out = capsys.readouterr().out
    assert "60 frames of 5.9 s, left out: 10 dark" in out
    assert "times real time" in out
    written = {path.name for path in (tmp_path / "out").iterdir()} - {".lock"}
    assert written == {"annotated.mp4", "frames.csv", "events.csv", "timeline.png", "events"}
    assert len(list(read_video(tmp_path / "out" / "annotated.mp4"))) == 60
    assert Image.open(tmp_path / "out" / event.picture).size == (48, 32)
    assert Image.open(tmp_path / "out" / "timeline.png").size[0] > 1000


def test_nothing_of_an_earlier_run_stays(clip, known, tmp_path):
    video("model.xml", str(clip), tmp_path / "out")
    known.thresholds = dict.fromkeys(Modality, 2.0)
    video("model.xml", str(clip), tmp_path / "out", annotate=False)
    assert not list((tmp_path / "out" / "events").iterdir())
    assert not (tmp_path / "out" / "annotated.mp4").exists()
    assert pd.read_csv(tmp_path / "out" / "events.csv").empty


def test_what_a_camera_showed_is_kept_when_the_user_ends_it(clip, known, tmp_path, monkeypatch):
    class UntilTheUserEndsIt(LiveFrames):
        def __iter__(self):
            for number, item in enumerate(read_video(self.source)):
                if number == 30:
                    raise KeyboardInterrupt
                yield item

    monkeypatch.setattr(module, "LiveFrames", UntilTheUserEndsIt)
    monkeypatch.setattr(module, "is_live", lambda _: True)
    video("model.xml", str(clip), tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / "frames.csv")) == 29  # The last was on its way.
    (event,) = pd.read_csv(tmp_path / "out" / "events.csv").itertuples()
    assert event.start == pytest.approx(2.0, abs=0.11)


def test_a_damaged_video_keeps_what_came_before(clip, known, tmp_path, monkeypatch):
    def broken(source):
        for number, item in enumerate(read_video(source)):
            if number == 40:
                msg = f"{source}: damaged after frame 40."
                raise VideoError(msg)
            yield item

    monkeypatch.setattr(module, "read_video", broken)
    with pytest.raises(VideoError, match=r"damaged after frame 40\. What came before is in"):
        video("model.xml", str(clip), tmp_path / "out", annotate=False)
    assert len(pd.read_csv(tmp_path / "out" / "frames.csv")) == 40
    assert len(pd.read_csv(tmp_path / "out" / "events.csv")) == 1


def test_nothing_half_written_stays_when_a_run_fails(clip, known, tmp_path, monkeypatch):
    monkeypatch.setattr(video_report, "annotated", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        video("model.xml", str(clip), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock"}


@pytest.mark.parametrize("content", [b"", b"no video"])
def test_what_is_no_video_is_named_before_anything_is_written(known, tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be opened as a video"):
        video("model.xml", str(tmp_path / "a.mp4"), tmp_path / "out")
    with pytest.raises(VideoError, match=r"b\.mp4: no such video"):
        video("model.xml", str(tmp_path / "b.mp4"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="not negative, got smoothing=-1"):
        video("model.xml", str(tmp_path / "a.mp4"), tmp_path / "out", smoothing=-1)


def test_a_live_source_drops_frames_rather_than_lag(tmp_path, monkeypatch):
    """Who comes back when the camera has ended finds the last frames alone."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    live = LiveFrames(phantom_clip(tmp_path / "clip.mp4", [(1.0, 0, None)], rate=25, size=32), waiting=2)
    frames = iter(live)
    taken = [next(frames)[0]]
    with live._changed:
        live._changed.wait_for(lambda: live._ended)
    taken += [second for second, _ in frames]
    assert len(taken) <= 3
    assert taken[-1] == pytest.approx(24 / 25, abs=2e-3)
    assert len(taken) + live.dropped == 25


def test_a_live_source_that_fails_says_so(tmp_path):
    with pytest.raises(VideoError, match="no such video"):
        list(LiveFrames(tmp_path / "none.mp4"))


def test_only_a_part_is_judged_where_that_is_asked_for(clip, known, tmp_path):
    video("model.xml", str(clip), tmp_path / "out", seconds=1.0, annotate=False)
    assert len(pd.read_csv(tmp_path / "out" / "frames.csv")) == 10
    assert not (tmp_path / "out" / "annotated.mp4").exists()
