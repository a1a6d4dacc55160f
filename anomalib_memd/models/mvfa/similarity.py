"""The similarity of image and text that CLIP itself gives, without any training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.evaluation import with_pre_processor

from .lightning_model import TowerMixin
from .prompts import PROMPTS, read_prompts
from .towers import ClipTower


class TextSimilarityModel(nn.Module):
    r"""Chance that an image goes with the abnormal rather than with the normal prompts.

    .. math::
        \sigma\big(100\, v \cdot (T_{abnormal} - T_{normal})\big)

    with CLIP's vector :math:`v` of the image and its mean text of each state, all of length 1.

    Args:
        tower: A CLIP.
        prompts: Sentences for normal and abnormal.
    """

    def __init__(self, tower: ClipTower, prompts: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("text", F.normalize(tower.states(prompts), dim=1))
        self.text: torch.Tensor

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Scores ``(B,)`` of normalised images ``(B, 3, H, W)``; there is no map."""
        vectors = F.normalize(self.tower.whole(images), dim=1)
        return InferenceBatch(pred_score=(self.tower.scale * vectors @ (self.text[1] - self.text[0])).sigmoid())


class TextSimilarity(TowerMixin, AnomalibModule):
    """CLIP's own similarity of image and text, see :class:`TextSimilarityModel`. It has seen no image of the data set.

    Args:
        clip: See :class:`.MVFA`, as all others.
        pretrained: Likewise.
        clip_config: Likewise.
        prompts: Likewise.
        image_size: Likewise.
        **components: Likewise.
    """

    model: TextSimilarityModel

    def __init__(
        self,
        clip: str = "ViT-L-14",
        pretrained: str | Path = "openai",
        clip_config: Mapping[str, Any] | None = None,
        prompts: str | Path = PROMPTS,
        image_size: tuple[int, int] = (224, 224),
        **components: Any,
    ) -> None:
        sentences = read_prompts(prompts)
        tower = ClipTower(clip, pretrained, clip_config, tuple(image_size))
        super().__init__(**with_pre_processor(components, image_size, *tower.normalization))
        self.model = TextSimilarityModel(tower, sentences)

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Nothing is trained; one epoch lets thresholds be found."""
        return {"max_epochs": 1, "limit_train_batches": 1, "num_sanity_val_steps": 0, "devices": 1}

    @property
    def learning_type(self) -> LearningType:
        """It learns nothing."""
        return LearningType.ZERO_SHOT

    def configure_post_processor(self) -> PostProcessor:
        """Thresholds and ranges, as of other models."""
        return PostProcessor()

    @staticmethod
    def configure_optimizers() -> None:
        """Nothing is optimised."""

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Nothing is learned."""
        del batch, args, kwargs
        return torch.tensor(0.0, requires_grad=True, device=self.device)
