"""Download and unpacking, against a server on the loopback interface."""

import hashlib
import io
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from anomalib_memd import Kvasir
from anomalib_memd.data.download import DownloadError, download_archive, unpack_archive

CLASSES = ("normal-cecum", "normal-pylorus", "normal-z-line", "esophagitis", "polyps", "ulcerative-colitis")


def archive(extra=()):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in CLASSES:
            for number in range(9):
                image = io.BytesIO()
                Image.fromarray(np.full((8, 8, 3), number * 20, np.uint8)).save(image, "jpeg")
                file.writestr(f"kvasir-dataset-v2/{name}/{number}.jpg", image.getvalue())
        for name in extra:
            file.writestr(name, b"x")
    return content.getvalue()


@pytest.fixture
def server():
    """A server that can break off after a number of bytes, and counts what it is asked for."""

    class Handler(BaseHTTPRequestHandler):
        content, breaks, ranges = archive(), [], []

        def do_GET(self):
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self.ranges.append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(self.content) - start))
            self.end_headers()
            stop = self.breaks.pop(0) if self.breaks else len(self.content)
            self.wfile.write(self.content[start:stop])

        def log_message(self, *args):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{served.server_port}/kvasir.zip"
    yield Handler
    served.shutdown()


def test_prepare_data_downloads_unpacks_and_splits(server, tmp_path):
    root = tmp_path / "data" / "kvasir"
    digest = hashlib.sha256(server.content).hexdigest()
    datamodule = Kvasir(root, url=server.url, sha256=digest, split_sizes=(9, 3, 6), num_workers=0)
    datamodule.prepare_data()
    datamodule.prepare_data()
    assert server.ranges == [0]
    datamodule.setup()
    assert len(datamodule.train_data) == 9
    assert sorted(p.name for p in root.parent.iterdir()) == ["kvasir"]


def test_broken_download_resumes(server, tmp_path):
    server.breaks[:] = [1000, 3000]
    target = tmp_path / "kvasir.zip"
    for _ in range(2):
        with pytest.raises(DownloadError, match=r"again to resume|network"):
            download_archive(server.url, target)
        assert not target.exists()
    download_archive(server.url, target, hashlib.sha256(server.content).hexdigest())
    assert target.read_bytes() == server.content
    assert server.ranges == [0, 1000, 3000]
    assert [p.name for p in tmp_path.iterdir()] == ["kvasir.zip"]


def test_wrong_digest_is_removed(server, tmp_path):
    with pytest.raises(DownloadError, match="SHA-256"):
        download_archive(server.url, tmp_path / "kvasir.zip", "0" * 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:\\evil.txt"])
def test_members_outside_are_refused(tmp_path, name):
    (tmp_path / "bad.zip").write_bytes(archive([name]))
    with pytest.raises(DownloadError, match="outside"):
        unpack_archive(tmp_path / "bad.zip", tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.zip"]


def test_links_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        link = zipfile.ZipInfo("cecum/a.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DownloadError, match=r"'cecum/a.jpg' is a link"):
        unpack_archive(tmp_path / "bad.zip", tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.zip"]


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("anomalib_memd.data.download.HARMLESS_SIZE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(4):
            file.writestr(f"{number}.bmp", bytes(1 << 19))
    with pytest.raises(DownloadError, match=r"bomb.zip: 0.0 MB would become 0.0 GB, as no images do"):
        unpack_archive(tmp_path / "bomb.zip", tmp_path / "data")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    (tmp_path / "good.zip").write_bytes(archive(["a/b.jpg"]) * 1)
    with pytest.raises(DownloadError, match=r"good.zip: needs 0.0 GB, and .* has 0.0 GB; make room"):
        unpack_archive(tmp_path / "good.zip", tmp_path / "data")
    assert {p.name for p in tmp_path.iterdir()} == {"bomb.zip", "good.zip"}


def test_damaged_archive_leaves_nothing(tmp_path):
    content = bytearray(archive())
    content[200:210] = bytes(10)
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(DownloadError, match=r"damaged|no ZIP"):
        unpack_archive(tmp_path / "bad.zip", tmp_path / "data")
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    with pytest.raises(DownloadError, match="no ZIP archive"):
        unpack_archive(tmp_path / "bad.zip", tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.zip"]


def test_unreachable_address_names_the_way_out(tmp_path):
    with pytest.raises(DownloadError, match="Without a network"):
        download_archive("http://127.0.0.1:1/kvasir.zip", tmp_path / "kvasir.zip")
    with pytest.raises(DownloadError, match="only http"):
        download_archive("file:///etc/passwd", tmp_path / "kvasir.zip")
