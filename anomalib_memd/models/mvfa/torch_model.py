"""PyTorch model of MVFA."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import DynamicBufferMixin
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import sigmoid_focal_loss

from anomalib_memd.components.distance import nearest_squares
from anomalib_memd.components.overlap import dice_loss
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models.pairs import asked_by, mean_of

from .towers import LEVELS, Tower

LARGEST_MEMORY = 4096
"""Number of tokens of normal images that are kept at most for each level and use, evenly spaced among all."""


class Use(StrEnum):
    """What adapted tokens are for."""

    PLACE = "place"
    IMAGE = "image"


class Adapter(nn.Module):
    r"""Two linear layers around the space of the text.

    .. math::
        t = \mathrm{LeakyReLU}(W_1 x), \qquad y = \mathrm{LeakyReLU}(W_2 t)

    :math:`t` is compared with the text, :math:`y` goes back into the image encoder. The last level has a projector
    alone: nothing comes after it.

    Args:
        width: Number of channels of a token.
        text_width: Number of channels of a text.
        last: Whether it is a projector alone.
    """

    def __init__(self, width: int, text_width: int, last: bool) -> None:
        super().__init__()
        self.project = nn.Linear(width, text_width, bias=False)
        self.back = None if last else nn.Linear(text_width, width, bias=False)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """``t`` and ``y`` of tokens ``(B, N, width)``."""
        aligned = F.leaky_relu(self.project(tokens))
        return aligned, None if self.back is None else F.leaky_relu(self.back(aligned))


class Memory(DynamicBufferMixin, nn.Module):
    """Aligned tokens of normal images, and how far others are from the nearest of them.

    Args:
        channels: Number of channels of a token.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(0, channels))
        self.bank: torch.Tensor

    def fit(self, tokens: torch.Tensor) -> None:
        """Take over tokens of length 1, ``(N, C)``."""
        self.bank = tokens[:: -(-len(tokens) // LARGEST_MEMORY) or 1].contiguous()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """One minus the largest cosine, ``(B, N)``, of tokens of length 1, ``(B, N, C)``; 0 of an empty memory."""
        if not len(self.bank):
            return tokens.new_zeros(tokens.shape[:2])
        # The squared distance of vectors of length 1 is twice one minus their cosine.
        nearest = nearest_squares(tokens.flatten(0, 1), self.bank, 1).view(tokens.shape[:2])
        return nearest.clamp_min(0) / 2


class MVFAModel(nn.Module):
    r"""A frozen image encoder, adapted at four levels to tell normal from abnormal text.

    At each level :math:`l` one adapter serves images and one places, see :class:`Adapter`. With their outputs
    :math:`y` the tokens go on as

    .. math::
        x \leftarrow (1 - 2 s)\, x + s\, y_{place} + s\, y_{image}, \qquad s = 0.1.

    The aligned tokens :math:`t` and the mean text of each state, all of length 1, give the chance of a place,

    .. math::
        p_l = \sigma\big(c\, t_l \cdot (T_{abnormal} - T_{normal})\big),

    the softmax of both cosines times :math:`c`. The chance of an image is the mean of that of its tokens. The loss is
    summed over levels,

    .. math::
        L = \sum_l \mathrm{Dice}(p_l, y) + \mathrm{focal}(p_l, y) + \mathrm{BCE}(\bar p_l, \max y).

    The score is the weighted sum of two branches: *zero-shot* is the mean of the chances over levels, *few-shot* the
    mean of one minus the largest cosine with the tokens of normal images that are kept.

    Args:
        tower: Encoder of images and text.
        prompts: Sentences for normal and abnormal, see :func:`.read_prompts`.
        share: The share :math:`s`.
        zero_shot_weight: Weight of the chances.
        few_shot_weight: Weight of the memory; with 0 there is none.
        text_width: Number of channels in which tokens and text are compared, where the tower has not aligned them; a
            learned projection of the text goes there. CLIP's own is kept.

    Source:
        Huang et al., "Adapting Visual-Language Models for Generalizable Anomaly Detection in Medical Images", CVPR
        2024. It leaves open how tokens of the memory become the score of an image; here by their mean, as the chances
        do.
    """

    def __init__(
        self,
        tower: Tower,
        prompts: Mapping[str, Sequence[str]],
        share: float = 0.1,
        zero_shot_weight: float = 0.5,
        few_shot_weight: float = 0.5,
        text_width: int = 256,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.share = share
        self.weights = zero_shot_weight, few_shot_weight
        width = tower.text_width if tower.aligned else text_width
        self.align = nn.Identity() if tower.aligned else nn.Linear(tower.text_width, width, bias=False)
        self.adapters = nn.ModuleDict(
            {
                use.value: nn.ModuleList(
                    Adapter(channels, width, level == LEVELS - 1) for level, channels in enumerate(tower.widths)
                )
                for use in Use
            }
        )
        self.memories = nn.ModuleDict({use.value: nn.ModuleList(Memory(width) for _ in range(LEVELS)) for use in Use})
        self.register_buffer("sentences", tower.states(prompts))
        self.sentences: torch.Tensor

    def text(self) -> torch.Tensor:
        """Normal and abnormal text, of length 1: ``(2, C)``."""
        return F.normalize(self.align(self.sentences), dim=1)

    def tokens(self, images: torch.Tensor) -> dict[Use, list[torch.Tensor]]:
        """Aligned tokens of places, of length 1: ``(B, h_l w_l, C)`` of each level, for each use.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.
        """
        found: dict[Use, list[torch.Tensor]] = {use: [] for use in Use}

        def adapt(level: int, tokens: torch.Tensor, prefix: int) -> torch.Tensor:
            mixed = tokens
            for use in Use:
                aligned, back = self._part(self.adapters, use, level)(tokens)
                found[use].append(F.normalize(aligned[:, prefix:], dim=-1))
                if back is not None:
                    mixed = mixed + self.share * (back - tokens)
            return mixed

        self.tower(images, adapt)
        return found

    def log_odds(self, tokens: torch.Tensor) -> torch.Tensor:
        """Log odds ``(B, N)`` of abnormal against normal text, of tokens ``(B, N, C)``."""
        normal, abnormal = self.text()
        return self.tower.scale * tokens @ (abnormal - normal)

    def loss(self, images: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        """Loss of labelled images, see the class.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.
            labels: Whether they are abnormal, ``(B,)``.
            masks: Masks of shape ``(B, H, W)``, of zeros where an abnormal image has none: its places then teach
                nothing. ``None`` if no abnormal image of the set has one.

        Returns:
            Scalar.
        """
        found = self.tokens(images)
        labels = labels.float()
        total = images.new_zeros(())
        for tokens in found[Use.IMAGE]:
            chance = self.log_odds(tokens).sigmoid().mean(1)
            total = total + F.binary_cross_entropy(chance.clamp(1e-6, 1 - 1e-6), labels)
        if masks is None:
            return total
        target = masks.float()[:, None]
        known = (labels == 0) | target.flatten(1).any(1)
        for tokens in found[Use.PLACE] if bool(known.any()) else ():
            places = _as_map(self.log_odds(tokens), images.shape)[known]
            total = total + sigmoid_focal_loss(places, target[known], reduction="mean")
            total = total + dice_loss(places.sigmoid(), target[known])
        return total

    @torch.no_grad()
    def remember(self, batches: Sequence[torch.Tensor]) -> None:
        """Fill the memories.

        Args:
            batches: Normalised normal images, each batch of shape ``(B, 3, H, W)``.
        """
        found = [self.tokens(images) for images in batches]
        for use in Use:
            for level in range(LEVELS):
                memory = self._part(self.memories, use, level)
                memory.fit(torch.cat([tokens[use][level].flatten(0, 1) for tokens in found]))

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            Scores of shape ``(B,)`` and maps of shape ``(B, 1, H, W)``.
        """
        found = self.tokens(images)
        scores, maps = [], []
        for level in range(LEVELS):
            scores.append(self._judge(Use.IMAGE, level, found[Use.IMAGE][level]).mean(1))
            maps.append(_as_map(self._judge(Use.PLACE, level, found[Use.PLACE][level]), images.shape))
        return InferenceBatch(pred_score=torch.stack(scores).mean(0), anomaly_map=torch.stack(maps).mean(0))

    @staticmethod
    def _part(parts: nn.ModuleDict, use: Use, level: int) -> Any:
        """The adapter or the memory of a use, at a level."""
        return parts[use.value][level]  # type: ignore[index]

    def _judge(self, use: Use, level: int, tokens: torch.Tensor) -> torch.Tensor:
        """Both branches together, ``(B, N)``, of the tokens of a level."""
        zero, few = self.weights
        judged = zero * self.log_odds(tokens).sigmoid()
        return judged + few * self._part(self.memories, use, level)(tokens) if few else judged

    def judge(self, branch: Branch, images: Mapping[Modality, torch.Tensor]) -> InferenceBatch:
        """Judge pairs, by one modality or by both as two views, which has the mean of both.

        Args:
            branch: Which.
            images: Normalised images of each modality, ``(B, 3, H, W)``.
        """
        return mean_of([self(images[modality]) for modality in asked_by(branch)])


def _as_map(values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Values ``(B, h w)`` of places as a map ``(B, 1, H, W)`` of images of a shape ``(B, 3, H, W)``."""
    height, width = shape[-2:]
    rows = round((values.shape[1] * height / width) ** 0.5)
    return F.interpolate(values.unflatten(1, (1, rows, -1)), (height, width), mode="bilinear")
