"""What a method costs: memory in training; latency, size and number of parameters in use."""

import hashlib
import logging
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import torch
from anomalib.models import AnomalibModule

from anomalib_memd.deployment import AS_EXPORTED
from anomalib_memd.memory import give_back_freed_memory

logger = logging.getLogger(__name__)


class PeakMemory:
    """Peak of the memory of this process and its children while the context is open.

    ``peak`` is in bytes, after the context. Of a process that uses a GPU it is that of the GPU's memory.

    Args:
        interval: Seconds between two looks.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        """Start to watch."""
        give_back_freed_memory()  # What was kept before is none of this.
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to watch."""
        self._done.set()
        self._thread.join()
        self.peak = torch.cuda.max_memory_allocated() or self.peak

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            # Pages of mapped files, such as kept features, are the system's to take back.
            info = process.memory_info()
            used = info.rss - getattr(info, "shared", 0)
            for child in process.children(recursive=True):
                try:
                    used += child.memory_full_info().uss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, used)
            if self._done.wait(self.interval):
                return


def measure_cost(model: AnomalibModule, workspace: Path, side: int = 256, repeats: int = 15) -> dict[str, Any]:
    """Measure a trained model on one image at a time, pre- and post-processing included.

    Args:
        model: The model.
        workspace: Folder for the exported model.
        side: Height and width of the image in pixels.
        repeats: Number of runs, of which the median counts.

    Returns:
        ``torch_ms`` and ``openvino_ms`` (latency in milliseconds), ``parameters`` (stored values of the deployed
        model, memory banks included) and ``file_bytes`` (its size); ``export_error`` if it could not be exported.
    """
    image = torch.rand(1, 3, side, side)
    model = model.cpu().eval()
    with torch.inference_mode():
        cost: dict[str, Any] = {"torch_ms": statistics.median(times_ms(lambda: model(image), repeats))}
    try:
        import openvino  # noqa: PLC0415  an extra

        # Not every model can leave the size of the batch open.
        one = {"dynamic_shapes": ({0: 1},)}
        path = model.to_openvino(workspace / "export", input_size=(side, side), onnx_kwargs=one)
        core = openvino.Core()
        network = core.read_model(path)
        compiled = core.compile_model(network, "CPU", {"PERFORMANCE_HINT": "LATENCY"} | AS_EXPORTED)
        array = image.numpy()
        cost["openvino_ms"] = statistics.median(times_ms(lambda: compiled(array), repeats))
        constants = [op.data for op in network.get_ops() if op.get_type_name() == "Constant"]
        # What is used twice, such as a backbone that sees an image at two sizes, is stored once.
        stored = {hashlib.sha256(values.tobytes()).digest(): values.size for values in constants}
        cost["parameters"] = sum(stored.values())
        cost["file_bytes"] = sum(file.stat().st_size for file in Path(path).parent.glob("*.bin"))
    except Exception as error:
        logger.exception("No deployed model to measure.")
        cost["export_error"] = f"{type(error).__name__}: {error}"
    return cost


def times_ms(call: Callable[[], Any], repeats: int, warm_up: int = 3) -> list[float]:
    """Wall-clock times of a call in milliseconds.

    Args:
        call: What is timed.
        repeats: Number of calls that count.
        warm_up: Number of calls before them.
    """
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return times
