"""A trained model, whatever file it is in, as something that judges frames."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch

from anomalib_memd.data.colours import plain_modality
from anomalib_memd.deployment.detector import DeployedDetector
from anomalib_memd.deployment.metadata import Metadata, ModelFileError, read_metadata, read_pickled
from anomalib_memd.deployment.stream import FramePrediction, FrameStream
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models.memd.lightning_model import MEMD

ModalityName = Literal["wli", "nbi"]


class Seen(NamedTuple):
    """A frame, and the modality by which it is judged."""

    image: np.ndarray
    """sRGB of 8 bits, ``(H, W, 3)``."""
    modality: Modality


class Judge(Protocol):
    """Judges frames by the student of their modality."""

    path: Path
    """The file of the model."""
    thresholds: dict[Modality, float]
    """Score from which a frame is called abnormal, for each modality that the model judges."""

    def __call__(self, frames: Iterable[Seen]) -> Iterator[FramePrediction]:
        """Judge frames, one after the other, in their order."""
        ...


def load_judge(path: str | Path, threads: int | None = None) -> Judge:
    """Load a model; nothing of its training has to be told again.

    Args:
        path: Checkpoint of MEMD (``.ckpt``), or a student that was exported: ``.xml`` (OpenVINO), ``.onnx``,
            ``.pt``, ``.ts`` or ``.pt2``; for a ``.pt`` see :func:`.read_pickled`.
        threads: Number of threads of OpenVINO; all that the machine has if ``None``.

    Raises:
        ModelFileError: If the file is no such model.
        FileNotFoundError: If there is no such file.
        ValueError: If a checkpoint is damaged, or of another model.
    """
    path = Path(path)
    if path.suffix == ".ckpt":
        return CheckpointJudge(path)
    metadata = read_metadata(path)
    if metadata.branch is Branch.TEACHER:
        msg = f"{path} is the teacher, which needs registered pairs; give a student, or the checkpoint."
        raise ModelFileError(msg)
    return StreamJudge(path, threads) if path.suffix in {".xml", ".onnx"} else ModuleJudge(path, metadata)


def recognise(image: np.ndarray) -> Modality | None:
    """The modality of a frame by its colours; ``None`` if it is not plain.

    Args:
        image: sRGB of 8 bits, ``(H, W, 3)``.
    """
    step = max(1, min(image.shape[:2]) // 64)  # The mean of colours needs few pixels.
    small = torch.from_numpy(np.ascontiguousarray(image[::step, ::step])).permute(2, 0, 1)[None]
    return plain_modality(small.float() / 255)


def choose_modality(judge: Judge, image: np.ndarray, given: Modality | None) -> tuple[Modality, Modality | None]:
    """By which student a frame is judged.

    Args:
        judge: The model.
        image: sRGB of 8 bits, ``(H, W, 3)``.
        given: What the user has said, if anything.

    Returns:
        What is given, or else recognised, or else white light, where the model can judge it; and what was recognised.
    """
    recognised = recognise(image)
    wanted = given or recognised or Modality.WLI
    return (wanted if wanted in judge.thresholds else next(iter(judge.thresholds))), recognised


def require_modality(judge: Judge, given: ModalityName | None) -> Modality | None:
    """The modality that the user has asked for, if any.

    Raises:
        ModelFileError: If the model has no student for it.
    """
    if given is None:
        return None
    if given not in judge.thresholds:
        msg = f"{judge.path} judges {', '.join(judge.thresholds).upper()}, not {given.upper()}; give another model."
        raise ModelFileError(msg)
    return Modality(given)


class StreamJudge:
    """A student that was exported as OpenVINO IR or ONNX."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.path = path
        self._stream = FrameStream(path, "rgb", config={"INFERENCE_NUM_THREADS": threads} if threads else None)
        self.thresholds = {self._stream.modality: self._stream.metadata.threshold}

    def __call__(self, frames: Iterable[Seen]) -> Iterator[FramePrediction]:
        """Judge frames."""
        return self._stream(frame.image for frame in frames)


class _TorchJudge:
    """Students as modules, frame after frame."""

    path: Path
    thresholds: dict[Modality, float]
    _students: dict[Modality, torch.nn.Module]
    _device = torch.device("cpu")

    @torch.inference_mode()
    def __call__(self, frames: Iterable[Seen]) -> Iterator[FramePrediction]:
        """Judge frames."""
        for image, modality in frames:
            batch = torch.from_numpy(image).to(self._device).permute(2, 0, 1)[None].float() / 255
            found = self._students[modality](batch)
            fields = found if isinstance(found, dict) else found._asdict()
            names = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
            score, label, anomaly_map, mask = (fields[name].float().cpu() for name in names)
            yield FramePrediction(
                float(score), bool(label), anomaly_map.squeeze().numpy(), mask.squeeze().bool().numpy()
            )


class CheckpointJudge(_TorchJudge):
    """Both students of a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        model = MEMD.load_from_checkpoint(path, map_location="cpu", visualizer=False).eval()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        students: dict[Modality, DeployedDetector] = {m: model.deployed(m).to(self._device) for m in Modality}
        self._students = dict(students)
        self.thresholds = {modality: student.metadata.threshold for modality, student in students.items()}


class ModuleJudge(_TorchJudge):
    """A student that was exported for PyTorch."""

    def __init__(self, path: Path, metadata: Metadata) -> None:
        self.path = path
        modality = Modality(metadata.branch.value)
        self.thresholds = {modality: metadata.threshold}
        if path.suffix == ".pt":
            student = read_pickled(path)["model"].eval()
        elif path.suffix == ".ts":
            student = torch.jit.load(path, "cpu")
        else:
            student = torch.export.load(path).module()
        self._students = {modality: student}
