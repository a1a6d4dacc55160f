"""What the page takes, and that it lets go of it."""

import asyncio

import pytest

from anomalib_memd.inference.uploads import Sessions, UploadLimit


async def whole(scope, receive, send):
    """An application that reads a request to its end."""
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200})


def ask(parts, path="/gradio_api/upload", pause=0.0, kind="http", **limits):
    """Status of the answer to an upload in parts."""
    waiting, sent = list(parts), []

    async def receive():
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    asyncio.run(UploadLimit(whole, **limits)({"type": kind, "path": path}, receive, send))
    return sent


@pytest.mark.parametrize(
    ("parts", "options", "status"),
    [
        ([b"x" * 40, b"y" * 40], {"size": 100}, 200),
        ([b"x" * 60, b"y" * 60], {"size": 100}, 413),
        ([b"x" * 60, b"y" * 60], {"size": 100, "path": "/gradio_api/queue/join"}, 200),
        ([b"x"] * 3, {"seconds": 30.0, "pause": 0.01}, 200),
        ([b"x"] * 1000, {"seconds": 0.05, "pause": 0.01}, 408),
        ([b"x"] * 20, {"seconds": 0.05, "pause": 0.01, "path": "/page"}, 200),
    ],
)
def test_what_is_too_large_or_too_slow_is_refused(parts, options, status):
    sent = ask(parts, **options)
    assert sent[0]["status"] == status
    if status != 200:
        assert b"drop fewer files" in sent[1]["body"]


def test_a_page_holds_what_it_shows_and_no_more(tmp_path):
    cache, own = tmp_path / "cache", tmp_path / "own.png"
    sessions = Sessions(cache)
    folders = [tmp_path / name for name in ("review-1", "review-2", "review-3")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / f"{folder.name}-0.jpg").touch()
        (cache / f"copy{number}").mkdir(parents=True)
        (cache / f"copy{number}" / f"{folder.name}-0.jpg").touch()
        (cache / f"{number}.png").touch()
    own.touch()
    sessions.hold("a", folders[0], [cache / "0.png", own])
    sessions.hold("b", folders[1], [cache / "1.png"])
    sessions.hold("a", folders[2], [cache / "0.png", cache / "2.png"])
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert own.exists()
    assert {path.name for path in cache.rglob("*.*")} == {"0.png", "1.png", "2.png", "review-2-0.jpg", "review-3-0.jpg"}
    sessions.end("a")
    assert {path.name for path in cache.rglob("*.*")} == {"1.png", "review-2-0.jpg"}
    sessions.end("b")
    sessions.end("b")
    assert not list(cache.rglob("*.*"))
    assert not any(folder.exists() for folder in folders)
