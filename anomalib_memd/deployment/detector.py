"""One detector, with all that inference needs and nothing else."""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from anomalib.data import InferenceBatch
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import Metric

from anomalib_memd.modality import Branch, Modality
from anomalib_memd.version import __version__

from .formats import ExportFormats
from .metadata import Metadata


class DeployedDetector(ExportFormats, LightningModule):
    """From sRGB images to normalised scores, maps, labels and masks.

    It shares its weights with the model that it is taken from.

    Args:
        detector: Its network, which has ``predict(features, size)`` for the features of each input.
        embedding: The backbone.
        pre_processor: From sRGB images in [0, 1] to what the backbone sees.
        post_processor: Normalisation and thresholds of the detector.
        metadata: What travels with exported files.
    """

    trainer = None  # type: ignore[assignment]
    """None; Lightning raises where it has none, which tracing does not expect."""

    def __init__(
        self,
        detector: nn.Module,
        embedding: nn.Module,
        pre_processor: nn.Module,
        post_processor: nn.Module,
        metadata: Metadata,
    ) -> None:
        super().__init__()
        self.metadata = metadata
        self.pre_processor = pre_processor
        self.embedding = embedding
        self.model = detector
        self.post_processor = copy.deepcopy(post_processor)
        for module in self.post_processor.modules():
            if isinstance(module, Metric):
                module.reset()  # Scores of validation images are of no use any more.
        self.eval()


class DeployedStudent(DeployedDetector):
    """The student of a modality."""

    def __init__(self, modality: Modality, *parts: Any) -> None:
        super().__init__(*parts)
        self.modalities = (modality,)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Judge images.

        Args:
            images: sRGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            Scores ``(B,)`` and maps ``(B, h, w)`` in [0, 1], labels and masks; maps are of the size that the
            backbone sees.
        """
        seen = self.pre_processor(images)
        return self.post_processor(self.model.predict([self.embedding(seen)], seen.shape[-2:]))


class DeployedTeacher(DeployedDetector):
    """The teacher, for the rare case of a registered pair."""

    modalities = tuple(Modality)

    def forward(self, wli: torch.Tensor, nbi: torch.Tensor) -> InferenceBatch:
        """Judge pairs.

        Args:
            wli: White light images, sRGB in [0, 1], of shape ``(B, 3, H, W)``.
            nbi: Their narrow band partners.

        Returns:
            See :meth:`DeployedStudent.forward`.
        """
        seen = [self.pre_processor(images) for images in (wli, nbi)]
        features = [self.embedding(images) for images in seen]
        return self.post_processor(self.model.predict(features, seen[0].shape[-2:]))


def deploy(
    detector: nn.Module,
    branch: Branch,
    embedding: nn.Module,
    pre_processor: nn.Module | None,
    post_processor: nn.Module | None,
    **described: Any,
) -> DeployedDetector:
    """One detector with all that inference needs and nothing else; it shares its weights with the model it is of.

    Args:
        detector: The student of a modality, or the teacher.
        branch: Which.
        embedding: The backbone.
        pre_processor: From sRGB images in [0, 1] to what the backbone sees.
        post_processor: Normalisation and thresholds of the detector.
        **described: Further fields of :class:`.Metadata`.
    """
    metadata = Metadata(
        branch=branch,
        threshold=float(getattr(post_processor, "normalized_image_threshold", math.nan)),
        raw_threshold=float(getattr(post_processor, "_image_threshold", math.nan)),
        version=__version__,
        **described,
    )
    rest = (detector, embedding, pre_processor or nn.Identity(), post_processor or nn.Identity(), metadata)
    return DeployedTeacher(*rest) if branch is Branch.TEACHER else DeployedStudent(Modality(branch.value), *rest)


class ExportsOneDetector:
    """A model that exports one of its detectors in place of itself."""

    def deployed(self) -> DeployedDetector:
        """The detector that is exported."""
        raise NotImplementedError

    def to_torch(self, *args: Any, **kwargs: Any) -> Path:
        """Export :meth:`deployed` alone, see :meth:`DeployedDetector.to_torch`."""
        return self.deployed().to_torch(*args, **kwargs)

    def to_onnx(self, *args: Any, **kwargs: Any) -> Path:
        """Export :meth:`deployed` alone, see :meth:`DeployedDetector.to_onnx`."""
        return self.deployed().to_onnx(*args, **kwargs)

    def to_openvino(self, *args: Any, **kwargs: Any) -> Path:
        """Export :meth:`deployed` alone, see :meth:`DeployedDetector.to_openvino`."""
        return self.deployed().to_openvino(*args, **kwargs)
