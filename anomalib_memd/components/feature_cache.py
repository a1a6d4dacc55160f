"""Features of the frozen backbone, computed once and kept for all epochs and both stages."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import ConcatDataset, DataLoader, Subset

from anomalib_memd.files import file_digest
from anomalib_memd.modality import Modality
from anomalib_memd.progress import track

from .backbones import computes_in_bfloat16, fast_precision, pieces
from .embedding import ImageFeatures
from .negatives import NegativePool

_DTYPE = torch.bfloat16


class FeatureCache:
    """Backbone features of training pairs and of their negatives, in one memory-mapped file.

    All rows are in bfloat16. They hold the pair and its negatives, ``(1 + negatives, 2, C, H, W)``, their overviews
    ``(1 + negatives, 2, C, H / 2, W / 2)`` if there are such, and the fractions of each location that the negatives
    changed, ``(negatives, 2, H, W)``. Several processes fill the same file, each its own rows, and all of them read all
    of it.

    Args:
        embed: Takes normalised images ``(B, 3, H, W)`` to their features.
        pools: One pool of negatives for each training dataset.
        key: What else the features depend on, such as weights and layers.
        directory: Folder in which the file is kept for later runs; ``None`` makes a temporary one.
    """

    def __init__(
        self,
        embed: nn.Module,
        pools: Sequence[NegativePool],
        key: str,
        directory: Path | None = None,
    ) -> None:
        self.embed = embed
        self.pools = pools
        self.negatives = pools[0].negatives
        self._temporary = directory is None
        self._directory = directory
        self._digest = self._fingerprint(key)
        self._rows = {path: row for row, path in enumerate(p for pool in pools for p in pool.dataset.item_paths())}
        self.features: ImageFeatures
        self.masks: torch.Tensor
        self._path: Path

    def _fingerprint(self, key: str) -> str:
        """Digest of everything that the features depend on, among it the content of the image files."""
        digest = hashlib.sha256(key.encode())
        files: dict[str, str] = {}
        for pool in self.pools:
            dataset = pool.dataset
            digest.update(json.dumps([pool.negatives, pool.synthesis.kind, repr(pool.transform)]).encode())
            digest.update(f"{dataset.augmentations!r} {dataset.translator!r}".encode())
            if dataset.translation is not None:
                digest.update(b"negatives are translated")
            for path in dataset.source_files():
                if path not in files:
                    files[path] = file_digest(path)
                digest.update(files[path].encode())
        return digest.hexdigest()

    def fill(
        self,
        device: torch.device,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        barrier: Callable[[], object] = lambda: None,
        broadcast: Callable[[str], str] = lambda path: path,
    ) -> None:
        """Compute what is not on the disk yet, and open the file.

        Args:
            device: Where the backbone is.
            num_workers: Number of processes that read and synthesise images.
            rank: Number of this process.
            world_size: Number of processes.
            barrier: Waits for all processes.
            broadcast: Gives the first process's string to all.

        Raises:
            OSError: If the disk has too little room.
        """
        images, _ = self.pools[0][0]
        with torch.inference_mode(), fast_precision(device):
            example: ImageFeatures = self.embed(images[0].to(device))
        rows = len(self._rows)
        shapes = [(rows, 1 + self.negatives, 2, *part.shape[1:]) for part in example if part is not None]
        shapes.append((rows, self.negatives, 2, *example.map.shape[-2:]))
        size = sum(_elements(shape) for shape in shapes)
        folder = self._directory or Path(broadcast(tempfile.mkdtemp(prefix="anomalib-memd-") if rank == 0 else ""))
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{self._digest[:32]}.features"
        # Another run on the same images may be filling the same file.
        with FileLock(self._path.with_suffix(".lock")) if rank == 0 else nullcontext():
            barrier()  # Nobody looks for it before that has ended.
            data: torch.Tensor | None = None
            if not self._path.exists():
                partial = self._path.with_suffix(".part")
                try:
                    if rank == 0:
                        self._make_room(partial, rows, size * _DTYPE.itemsize)
                    barrier()
                    data = torch.from_file(str(partial), shared=True, size=size, dtype=_DTYPE)
                    barrier()
                    if rank == 0:
                        # All processes have a temporary file open, and the system keeps it until they end: nothing
                        # stays if they are killed.
                        self._remove_temporary()
                    self._compute(*_unpack(data, shapes), device, num_workers, rank, world_size)
                    if not self._temporary:
                        data = None  # Not every system renames what is open.
                        barrier()
                        if rank == 0:
                            partial.replace(self._path)
                except BaseException:
                    partial.unlink(missing_ok=True)
                    self._remove_temporary()
                    raise
            barrier()
            if data is None:
                data = torch.from_file(str(self._path), shared=True, size=size, dtype=_DTYPE)
        self.features, self.masks = _unpack(data, shapes)

    def _make_room(self, path: Path, rows: int, needed: int) -> None:
        """Make a file of a size; where a disk is full, writing into memory that is mapped would end the process."""
        for left in path.parent.glob("*.part"):  # Of a run that was killed, and was given other images since.
            with suppress(Timeout, OSError), FileLock(left.with_suffix(".lock"), timeout=0):
                left.unlink()
        free = shutil.disk_usage(path.parent).free
        try:
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate") and free >= needed:
                    os.posix_fallocate(file.fileno(), 0, needed)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            free = shutil.disk_usage(path.parent).free
        if free < needed:
            msg = (
                f"The features of {rows} pairs need {needed / 1e9:.1f} GB, {path.parent} has {free / 1e9:.1f} GB; set "
                f"cache_dir to another disk, lower negatives, or set cache=false."
            )
            raise OSError(msg)

    @torch.inference_mode()
    def _compute(
        self,
        features: ImageFeatures,
        masks: torch.Tensor,
        device: torch.device,
        num_workers: int,
        rank: int,
        world_size: int,
    ) -> None:
        mine = list(range(rank, len(masks), world_size))
        loader: DataLoader = DataLoader(Subset(ConcatDataset(self.pools), mine), batch_size=4, num_workers=num_workers)
        place = iter(mine)
        for images, changed in track(loader, "Features of the backbone", hidden=rank > 0):
            with fast_precision(device):
                batches = [self.embed(part) for part in pieces(images.flatten(0, 2).to(device))]
            rows = [next(place) for _ in images]
            masks[rows] = shrink(changed, masks.shape[-2:]).to(_DTYPE)
            for kept, found in zip(features, ImageFeatures.joined(batches), strict=True):
                if kept is not None:
                    kept[rows] = found.unflatten(0, images.shape[:3]).to("cpu", _DTYPE)

    def draw(self, paths: Sequence[str], device: torch.device) -> tuple[dict[Modality, Any], ...]:
        """Look up a batch, with one negative of each pair drawn by torch's generator.

        Args:
            paths: Paths of the items.
            device: Where the features go.

        Returns:
            Features of the normal images, features of the negatives (those of the normal images where the
            pool is empty) and masks of the negatives, for each modality, in the type that ``device`` computes in.
        """
        rows = torch.tensor([self._rows[path] for path in paths])
        numbers = torch.randint(max(self.negatives, 1), (len(rows),))
        return self._gather(rows, numbers, device)

    def rows(self, pool: int) -> torch.Tensor:
        """Numbers of the items of one dataset.

        Args:
            pool: Number of the dataset.
        """
        start = sum(len(p) for p in self.pools[:pool])
        return torch.arange(start, start + len(self.pools[pool]))

    def normals(
        self, rows: torch.Tensor, device: torch.device, size: int = 32
    ) -> Iterator[dict[Modality, ImageFeatures]]:
        """Go through the normal images of some rows.

        Args:
            rows: Numbers of items.
            device: Where the features go.
            size: Number of items a batch.

        Yields:
            Features of each modality, in the type that ``device`` computes in.
        """
        for part in rows.split(size):
            yield self._features(part, torch.zeros_like(part), device)

    def sweep(
        self, rows: torch.Tensor, device: torch.device, size: int = 32
    ) -> Iterator[tuple[dict[Modality, Any], ...]]:
        """Go through some rows, once with each negative; see :meth:`draw` for what is yielded.

        Args:
            rows: Numbers of items.
            device: Where the features go.
            size: Number of items a batch.
        """
        for part in rows.split(size):
            for number in range(max(self.negatives, 1)):
                yield self._gather(part, torch.full_like(part, number), device)

    def _gather(
        self,
        rows: torch.Tensor,
        numbers: torch.Tensor,
        device: torch.device,
    ) -> tuple[dict[Modality, Any], ...]:
        normal = self._features(rows, torch.zeros_like(rows), device)
        if not self.negatives:
            return normal, normal, {m: torch.zeros_like(x.map[:, 0]) for m, x in normal.items()}
        masks = self.masks[rows, numbers].to(device, _dtype(device))
        return normal, self._features(rows, 1 + numbers, device), dict(zip(Modality, masks.unbind(1), strict=True))

    def _features(
        self, rows: torch.Tensor, numbers: torch.Tensor, device: torch.device
    ) -> dict[Modality, ImageFeatures]:
        def of(part: int) -> ImageFeatures:
            return self.features.of(lambda kept: kept[rows, numbers, part].to(device, _dtype(device)))

        return {modality: of(part) for part, modality in enumerate(Modality)}

    def close(self) -> None:
        """Let go of the file."""
        for name in ("features", "masks"):
            self.__dict__.pop(name, None)
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        """Remove a temporary file with its folder, if the system lets go of it already."""
        if self._temporary and "_path" in self.__dict__:
            shutil.rmtree(self._path.parent, ignore_errors=True)


def shrink(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bring masks to the grid of the features: the changed fraction of each location.

    Args:
        masks: Masks of shape ``(..., H, W)``.
        size: Height and width of the grid.

    Returns:
        Fractions of shape ``(..., h, w)``.
    """
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    return F.interpolate(flat, tuple(size), mode="area").view(*masks.shape[:-2], *size)


def _elements(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _dtype(device: torch.device) -> torch.dtype:
    return _DTYPE if computes_in_bfloat16(device) else torch.float32


def _unpack(data: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> tuple[ImageFeatures, torch.Tensor]:
    parts = zip(data.split([_elements(shape) for shape in shapes]), shapes, strict=True)
    *features, masks = (part.view(shape) for part, shape in parts)
    return ImageFeatures(*features), masks
