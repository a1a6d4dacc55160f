"""Judging a stream of frames by an exported student."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from anomalib_memd.data.colours import mismatch, plain_modality
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.threads import one_thread

from .metadata import ModelFileError, read_metadata

logger = logging.getLogger(__name__)

AS_EXPORTED = {"EXECUTION_MODE_HINT": "ACCURACY"}
"""Option of OpenVINO that computes in the precision of the file. Without it, processors with bfloat16 compute in that,
and scores move by some thousandths from those that the threshold was chosen by."""


class ColourOrder(StrEnum):
    """Order of the channels of a frame."""

    RGB = "rgb"
    BGR = "bgr"
    """That of OpenCV."""


class FramePrediction(NamedTuple):
    """What a student makes of a frame."""

    score: float
    """In [0, 1]."""
    label: bool
    """Whether the score reaches the threshold."""
    anomaly_map: np.ndarray
    """Float in [0, 1] of shape ``(h, w)``, of the size that the backbone sees."""
    mask: np.ndarray
    """Where the map reaches its threshold, boolean of shape ``(h, w)``."""


class FrameStream:
    """Judge frames one after the other, several at a time, in their order.

    Requests run asynchronously while the next frames are read. At most ``requests + 1`` batches are held, so a
    stream may be endless.

    Args:
        path: Student exported as OpenVINO IR (``.xml``) or ONNX.
        colour_order: Order of the channels of the frames.
        batch_size: Number of frames a request, where the model was not exported for a certain one.
        requests: Number of requests at a time; one more than OpenVINO recommends if ``None``.
        device: Device of OpenVINO.
        config: Options of OpenVINO; by default it computes in the precision of the file, see :data:`AS_EXPORTED`.

    Raises:
        ModelFileError: If the file is no exported student, or damaged.

    Example:
        >>> stream = FrameStream("results/wli/weights/openvino/model.xml", "bgr")  # doctest: +SKIP
        >>> for prediction in stream(frames):  # doctest: +SKIP
        ...     print(prediction.score)
    """

    def __init__(
        self,
        path: str | Path,
        colour_order: ColourOrder | str,
        batch_size: int = 1,
        requests: int | None = None,
        device: str = "CPU",
        config: dict[str, Any] | None = None,
    ) -> None:
        if batch_size < 1 or (requests is not None and requests < 1):
            msg = f"batch_size and requests are at least 1, got {batch_size} and {requests}."
            raise ValueError(msg)
        self.path = Path(path)
        self.colour_order = ColourOrder(colour_order)
        self.batch_size = batch_size
        self.metadata = read_metadata(self.path)
        if self.metadata.branch is Branch.TEACHER:
            msg = f"{self.path} is the teacher, which needs pairs; a stream takes a student."
            raise ModelFileError(msg)
        self.modality = Modality(self.metadata.branch.value)
        import openvino  # noqa: PLC0415  an extra

        core = openvino.Core()
        options = {"PERFORMANCE_HINT": "THROUGHPUT" if requests is None else "LATENCY"} | AS_EXPORTED | (config or {})
        try:
            self.model = core.compile_model(self.path, device, options)
        except RuntimeError as error:
            msg = f"{self.path}: OpenVINO cannot load this model ({error}); export it again."
            raise ModelFileError(msg) from error
        self._shape = self.model.input(0).partial_shape
        if self._shape[0].is_static:
            self.batch_size = self._shape[0].get_length()
        # One more than OpenVINO runs at a time, which waits while the results of another are fetched.
        self.requests = requests or self.model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width that the model was exported for; ``None`` if for any. Frames are brought to it."""
        height, width = self._shape[2], self._shape[3]
        return (height.get_length(), width.get_length()) if height.is_static and width.is_static else None

    def __call__(self, frames: Iterable[np.ndarray]) -> Iterator[FramePrediction]:
        """Judge frames.

        Args:
            frames: Arrays of shape ``(H, W, 3)`` of any size, 8-bit or float in [0, 1]. The frames of a batch are of
                one size.

        Yields:
            A prediction for each frame, in their order.

        Raises:
            ValueError: If a frame is of another shape or type, or not finite; the message has its number.
        """
        idle = deque(self.model.create_infer_request() for _ in range(self.requests))
        busy: deque[tuple[Any, int]] = deque()
        numbered = enumerate(frames)
        seen = None
        while batch := tuple(islice(numbered, self.batch_size)):
            if not idle:
                yield from _results(*busy[0])
                idle.append(busy.popleft()[0])
            try:
                images = self._stack(batch)
            except ValueError:
                for under_way in busy:  # What has been judged is not lost.
                    yield from _results(*under_way)
                raise
            idle[0].start_async({0: images})
            busy.append((idle.popleft(), len(batch)))
            if seen is None:
                seen = plain_modality(torch.from_numpy(images))
                if seen is self.modality.other:
                    logger.warning("%s, from frame %d on: %s", self.path, batch[0][0], mismatch(self.modality))
        for under_way in busy:
            yield from _results(*under_way)

    @one_thread()
    def _stack(self, batch: tuple[tuple[int, np.ndarray], ...]) -> np.ndarray:
        """Frames as one array ``(B, 3, H, W)``, RGB in [0, 1]."""
        images = []
        for number, frame in batch:
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.shape[:2] != batch[0][1].shape[:2]:
                msg = f"Frame {number} has the shape {frame.shape}; {self.path} takes (H, W, 3), equal within a batch."
                raise ValueError(msg)
            if frame.dtype == np.uint8:
                image = frame.astype(np.float32) / 255
            elif not np.issubdtype(frame.dtype, np.floating) or not np.isfinite(frame).all():
                msg = f"Frame {number} is not finite or of type {frame.dtype}; {self.path} takes uint8 or float."
                raise ValueError(msg)
            elif frame.min() < 0 or frame.max() > 1:
                msg = f"Frame {number} has values from {frame.min()} to {frame.max()}; {self.path} takes [0, 1]."
                raise ValueError(msg)
            else:
                image = frame.astype(np.float32)
            images.append(image[..., ::-1] if self.colour_order is ColourOrder.BGR else image)
        stacked = np.stack(images).transpose(0, 3, 1, 2)
        if self._shape[0].is_static:  # The last batch may be short of frames.
            stacked = np.resize(stacked, (self._shape[0].get_length(), *stacked.shape[1:]))
        seen = torch.from_numpy(stacked)
        if size := self.input_size or self.metadata.image_size:
            # The model itself would do so by products of matrices, which take a third of the time for full HD.
            seen = functional.resize(seen, list(size), antialias=True)
        return np.ascontiguousarray(seen.numpy())


def _results(request: Any, count: int) -> Iterator[FramePrediction]:
    request.wait()
    found = {name: request.get_tensor(name).data for name in ("pred_score", "pred_label", "anomaly_map", "pred_mask")}
    for score, label, anomaly_map, mask in zip(*(value[:count].copy() for value in found.values()), strict=True):
        yield FramePrediction(float(score), bool(label), anomaly_map, mask.astype(bool))
