"""What models have in common that judge pairs by each modality and by both, with one network for all."""

from collections.abc import Mapping
from typing import Any

import torch
from anomalib.data import Batch, InferenceBatch

from anomalib_memd.data import PairedImageBatch
from anomalib_memd.evaluation import MultimodalEvaluator, MultimodalPostProcessor
from anomalib_memd.modality import Branch, Modality


class PairMixin:
    """Judges each image of a pair, and the pair as the branch of the teacher.

    An image that comes alone is of ``modality``. The mixin stands first among the bases. The model has
    ``judge(branch, images)``, and ``forward`` for an image alone.
    """

    modality: Modality
    model: Any

    @classmethod
    def checkpoint_safe_globals(cls) -> tuple[Any, ...]:
        """The enumeration among the options."""
        return (Modality,)

    @torch.no_grad()
    def judged(self, batch: Batch) -> Batch:
        """A batch as each modality and both judge it."""
        if not isinstance(batch, PairedImageBatch):
            return batch.update(**self.model(batch.image)._asdict())
        images = images_of(batch)
        for branch in Branch:
            batch.update_branch(branch, self.model.judge(branch, images))
        return batch


def images_of(batch: PairedImageBatch) -> dict[Modality, torch.Tensor]:
    """The images ``(B, 3, H, W)`` of pairs."""
    return {Modality.WLI: batch.image, Modality.NBI: batch.nbi_image}  # type: ignore[dict-item]


def pair_components(modality: Modality | str, components: Mapping[str, Any]) -> dict[str, Any]:
    """Anomalib's components, with an evaluator and a post-processor of each branch where none are given.

    Args:
        modality: Modality of images that come alone.
        components: The components that were given.
    """
    kinds: dict[str, Any] = {"post_processor": MultimodalPostProcessor, "evaluator": MultimodalEvaluator}
    made = {name: kind(modality) for name, kind in kinds.items() if components.get(name, True) is True}
    return {**components, **made}


def asked_by(branch: Branch) -> list[Modality]:
    """The modalities whose images a branch judges."""
    return list(Modality) if branch is Branch.TEACHER else [Modality(branch.value)]


def mean_of(judged: list[InferenceBatch]) -> InferenceBatch:
    """Mean of what was made of each image of a pair: scores ``(B,)`` and maps ``(B, 1, H, W)``."""
    scores, maps = (
        torch.stack([getattr(one, name) for one in judged]).mean(0) for name in ("pred_score", "anomaly_map")
    )
    return InferenceBatch(pred_score=scores, anomaly_map=maps)
