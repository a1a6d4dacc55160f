"""Download of a data set that neither starts over nor leaves a half-finished folder."""

import http.client
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from tqdm import tqdm

from anomalib_memd.files import file_digest, workspace

_CHUNK = 1 << 20
HARMLESS_SIZE = 1 << 30
"""Number of bytes that any archive may unpack to."""
HARMLESS_RATIO = 20
"""How many times its size a larger archive may unpack to; images hardly shrink."""


class DownloadError(RuntimeError):
    """A data set that could not be fetched or is not what it should be."""


def download_archive(url: str, target: Path, sha256: str | None = None) -> Path:
    """Fetch a file, resuming where an earlier attempt stopped.

    Args:
        url: Address, ``http`` or ``https``.
        target: Where the complete file goes; the unfinished one stands beside it as ``.part``.
        sha256: Expected digest; not checked if ``None``.

    Returns:
        ``target``.

    Raises:
        DownloadError: If the address cannot be reached or the digest differs.
    """
    if not url.startswith(("http://", "https://")):
        msg = f"{url}: only http and https addresses are fetched."
        raise DownloadError(msg)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        _fetch(url, partial)
        partial.replace(target)
    if sha256 is not None:
        digest = file_digest(target)
        if digest != sha256:
            target.unlink()
            msg = f"{url}: the file has the SHA-256 {digest} instead of {sha256}; it was removed, try again."
            raise DownloadError(msg)
    return target


def unpack_archive(archive: Path, folder: Path) -> None:
    """Unpack a ZIP archive; ``folder`` appears only once everything is in it.

    Args:
        archive: ZIP file. A single folder at its top is left out.
        folder: Where its content goes; must not exist.

    Raises:
        DownloadError: If the archive is damaged or a member would land outside ``folder``.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as members, workspace(folder.parent, f".{folder.name}.part-") as temporary:
            _require_harmless(archive, members, folder)
            damaged = members.testzip()
            if damaged is not None:
                msg = f"{archive}: the member {damaged!r} is damaged; remove the archive and fetch it again."
                raise DownloadError(msg)
            unpacked = temporary / "content"
            unpacked.mkdir()
            members.extractall(unpacked)
            top = list(unpacked.iterdir())
            content = top[0] if len(top) == 1 and top[0].is_dir() else unpacked
            content.chmod(0o755)
            content.replace(folder)
    except zipfile.BadZipFile as error:
        msg = f"{archive}: no ZIP archive ({error}); remove it and fetch it again."
        raise DownloadError(msg) from error


def _require_harmless(archive: Path, members: zipfile.ZipFile, folder: Path) -> None:
    """Refuse members that would land elsewhere, links, and what unpacks to far more than images do."""
    for member in members.infolist():
        name = member.filename
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in name:
            msg = f"{archive}: the member {name!r} would land outside of {folder}; nothing was unpacked."
            raise DownloadError(msg)
        if stat.S_ISLNK(member.external_attr >> 16):
            msg = f"{archive}: the member {name!r} is a link; nothing was unpacked."
            raise DownloadError(msg)
    size, packed = sum(member.file_size for member in members.infolist()), archive.stat().st_size
    if size > max(HARMLESS_SIZE, HARMLESS_RATIO * packed):
        grown = f"{packed / 1e6:.1f} MB would become {size / 1e9:.1f} GB"
        msg = f"{archive}: {grown}, as no images do; nothing was unpacked."
        raise DownloadError(msg)
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        msg = f"{archive}: needs {size / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB; make room."
        raise DownloadError(msg)


def _fetch(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            resumed = response.status == 206
            total = int(response.headers.get("Content-Length", 0)) + (start if resumed else 0)
            rank_zero_info(f"{'Resuming' if resumed else 'Fetching'} {url}")
            with (
                partial.open("ab" if resumed else "wb") as file,
                tqdm(total=total or None, initial=start if resumed else 0, unit="B", unit_scale=True) as progress,
            ):
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    progress.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # The whole file is there already.
            return
        msg = f"{url}: {error}."
        raise DownloadError(msg) from error
    except (OSError, http.client.HTTPException) as error:
        msg = f"{url}: {error}. Without a network, fetch the archive elsewhere and unpack it yourself."
        raise DownloadError(msg) from error
    if total and partial.stat().st_size != total:
        msg = f"{url}: got {partial.stat().st_size} of {total} bytes; run again to resume."
        raise DownloadError(msg)
