"""Features of frozen backbones, computed once and shared by all methods of a benchmark."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch
from weakref import WeakKeyDictionary

import numpy as np
import torch
from anomalib.models.components import TimmFeatureExtractor

from anomalib_memd.components.backbones import pieces
from anomalib_memd.files import written_whole


class FeatureStore:
    """Maps of the layers of frozen backbones, one file for each backbone, image and layer.

    An image is known by the digest of the tensor that the backbone is given, so whatever a method does to its
    images is respected. Maps are kept in half precision; a map that has just been computed is rounded
    likewise, so that the first method sees what the later ones see.

    Args:
        directory: Folder of the files.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._digests: WeakKeyDictionary[TimmFeatureExtractor, str] = WeakKeyDictionary()
        self.hits = 0
        """Number of images whose features were found."""
        self.misses = 0
        """Number of images whose features were computed."""

    def extract(self, extractor: TimmFeatureExtractor, images: torch.Tensor) -> dict[str | int, torch.Tensor]:
        """Features of images, looked up or computed.

        Args:
            extractor: Frozen backbone.
            images: Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            A map ``(B, C, h, w)`` for each layer.

        Raises:
            OSError: If the disk is full.
        """
        folder = self.directory / self._digest(extractor)
        keys = [_tensor_digest(image) for image in images]
        files = [[folder / key / f"{layer}.npy" for layer in extractor.layers] for key in keys]
        absent = [row for row, paths in enumerate(files) if not all(path.exists() for path in paths)]
        self.misses += len(absent)
        self.hits += len(files) - len(absent)
        if absent:
            computed = {layer: maps.half().cpu().numpy() for layer, maps in _compute(extractor, images[absent]).items()}
        features: dict[str | int, torch.Tensor] = {}
        for number, layer in enumerate(extractor.layers):
            maps = [
                computed[layer][absent.index(row)] if row in absent else np.load(paths[number])
                for row, paths in enumerate(files)
            ]
            # Backbones may put channels last in memory; some methods rely on their coming first.
            stacked = torch.from_numpy(np.ascontiguousarray(np.stack(maps)))
            features[layer] = stacked.to(images.device, torch.float32)
            for row in absent:
                _write(files[row][number], maps[row])
        return features

    def _digest(self, extractor: TimmFeatureExtractor) -> str:
        if extractor not in self._digests:
            # The name of the architecture; behind the dot stands that of weights, which may have been replaced.
            architecture = str(extractor.backbone).split(".", maxsplit=1)[0]
            options = f"{architecture} {extractor.output_fmt} {extractor.norm} {extractor.return_class_token}"
            digest = hashlib.blake2b(options.encode(), digest_size=16)
            for name, value in extractor.feature_extractor.state_dict().items():
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy())
            self._digests[extractor] = digest.hexdigest()
        return self._digests[extractor]


@contextmanager
def shared_features(store: FeatureStore | None) -> Iterator[None]:
    """Let every frozen ``TimmFeatureExtractor`` take its features from a store.

    Args:
        store: The store; ``None`` leaves extractors alone.
    """
    if store is None:
        yield
        return

    def forward(self: TimmFeatureExtractor, inputs: torch.Tensor) -> dict[str | int, torch.Tensor]:
        # A backbone that is no string is a module of somebody's own, whose layers may mean anything.
        frozen = not self.requires_grad and not inputs.requires_grad and isinstance(self.backbone, str)
        return store.extract(self, inputs) if frozen else _FORWARD(self, inputs)

    with patch.object(TimmFeatureExtractor, "forward", forward):
        yield


_FORWARD = TimmFeatureExtractor.forward


@torch.no_grad()
def _compute(extractor: TimmFeatureExtractor, images: torch.Tensor) -> dict[str | int, torch.Tensor]:
    """One pass in float32."""
    layout = images.float().contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, enabled=False):
        parts = [_FORWARD(extractor, part) for part in pieces(layout)]
    return {layer: torch.cat([part[layer] for part in parts]) for layer in extractor.layers}


def _tensor_digest(image: torch.Tensor) -> str:
    return hashlib.blake2b(image.detach().float().cpu().contiguous().numpy(), digest_size=16).hexdigest()


def _write(path: Path, array: np.ndarray) -> None:
    try:
        with written_whole(path) as temporary:
            np.save(temporary, array)
    except OSError as error:
        msg = (
            f"{path}: features cannot be kept ({error}). Take a folder on a larger disk; features of finished "
            f"benchmarks can be deleted."
        )
        raise OSError(msg) from error
