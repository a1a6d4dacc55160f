"""Frozen towers of images and text: CLIP, or a backbone of timm beside a sentence encoder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import BackboneError, WeightsNotFetchedError, build_or_defer, normalization
from anomalib_memd.components.sentences import SentenceEncoder

from .prompts import STATES

Adapt = Callable[[int, torch.Tensor, int], torch.Tensor]
"""What is done with the tokens ``(B, N, C)`` of a level; the last argument is how many are no places."""

LEVELS = 4
"""Number of levels whose tokens are adapted."""

LARGEST_SIDE = 32
"""Number of places along the longer side of a map; a finer one is averaged."""


class Tower(nn.Module):
    """A frozen encoder of images that lets the tokens of four levels be adapted, and encodes sentences."""

    widths: list[int]
    """Number of channels of each level."""
    text_width: int
    """Number of channels of an encoded sentence."""
    aligned: bool
    """Whether images and sentences are in one space from the beginning."""
    scale: float
    """By what cosines of images and text are multiplied to give log odds."""
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    """Mean and deviation of each channel by which images are normalised."""
    lacking: WeightsNotFetchedError | None = None
    """Why it has no weights, if it has none."""

    def train(self, mode: bool = True) -> "Tower":
        """It is frozen, so it is always in evaluation."""
        del mode
        return super().train(False)

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """Encode sentences as ``(N, text_width)``."""
        raise NotImplementedError

    def states(self, prompts: Mapping[str, Sequence[str]]) -> torch.Tensor:
        """Mean sentence of each state, all of length 1 before: ``(2, text_width)``; zeros without weights."""
        if self.lacking is not None:
            return torch.zeros(len(STATES), self.text_width)
        return torch.stack([F.normalize(self.embed(prompts[state]), dim=1).mean(0) for state in STATES])

    def forward(self, images: torch.Tensor, adapt: Adapt) -> None:
        """Encode images, and call ``adapt`` at each level.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.
            adapt: What is done with the tokens.
        """
        raise NotImplementedError


class ClipTower(Tower):
    """A vision transformer of CLIP. Its later layers see the adapted tokens of the earlier ones.

    Args:
        name: Name of a model of open_clip, such as ``ViT-L-14``.
        pretrained: Name or file of its weights, see ``open_clip.list_pretrained()``.
        config: Options ``embed_dim``, ``vision_cfg`` and ``text_cfg`` of a CLIP with random weights instead.
        image_size: Height and width of the images, in pixels; positions are interpolated.

    Raises:
        BackboneError: If open_clip is not installed, or the model is none that can be used.

    Source:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    """

    aligned = True
    scale = 100.0

    def __init__(
        self,
        name: str = "ViT-L-14",
        pretrained: str | Path = "openai",
        config: Mapping[str, Any] | None = None,
        image_size: tuple[int, int] = (240, 240),
    ) -> None:
        super().__init__()
        clip, self._tokenize, self.lacking = _build_clip(name, str(pretrained), config, image_size)
        self.visual = clip.visual.requires_grad_(False)
        blocks = getattr(getattr(self.visual, "transformer", None), "resblocks", None)
        if blocks is None or not hasattr(self.visual, "_embeds") or len(blocks) < LEVELS:
            msg = f"MVFA adapts the layers of a vision transformer of open_clip, which {name} is not; take a ViT."
            raise BackboneError(msg)
        self.ends = [len(blocks) * (level + 1) // LEVELS for level in range(LEVELS)]
        """After how many layers each level ends."""
        self.widths = [self.visual.conv1.out_channels] * LEVELS
        self.text_width = self.visual.output_dim
        facts = getattr(self.visual, "preprocess_cfg", {})
        default = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        self.normalization = tuple(facts.get("mean", default[0])), tuple(facts.get("std", default[1]))
        # It is no part of the model, since the text is encoded once.
        self._text = [clip.requires_grad_(False).eval()]
        self.eval()

    @torch.no_grad()
    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """Encode sentences as ``(N, text_width)``."""
        return self._text[0].encode_text(self._tokenize(list(sentences))).float()

    def whole(self, images: torch.Tensor) -> torch.Tensor:
        """What CLIP itself makes of images, ``(B, text_width)``."""
        return self.visual(images)

    def forward(self, images: torch.Tensor, adapt: Adapt) -> None:
        """Encode images, see :class:`Tower`; the class token comes first."""
        tokens = self.visual._embeds(images)  # noqa: SLF001  open_clip has no public way to its first tokens
        start = 0
        for level, end in enumerate(self.ends):
            for block in self.visual.transformer.resblocks[start:end]:
                tokens = block(tokens)
            tokens = adapt(level, tokens, 1)
            start = end


class TimmTower(Tower):
    """A backbone of timm with four feature maps, and a sentence encoder in whose space nothing is aligned yet.

    Adapted tokens do not flow back: the maps stay what they are. Maps of more than
    32 x 32 places are averaged to fewer, and the channels of each place are normalised.

    Args:
        backbone: Name of a timm model.
        layers: Names of four of its layers.
        backbone_weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        sentence_encoder: See :class:`.SentenceEncoder`.

    Raises:
        BackboneError: If there are not four layers, or the backbone or the encoder cannot be had.
    """

    aligned = False
    scale = 10.0

    def __init__(
        self,
        backbone: str,
        layers: Sequence[str],
        backbone_weights: str | Path | None = None,
        sentence_encoder: str | Path | None = None,
    ) -> None:
        super().__init__()
        if len(layers) != LEVELS:
            msg = f"MVFA adapts {LEVELS} levels; name as many layers of {backbone}, got {list(layers)}."
            raise BackboneError(msg)
        self.visual, self.lacking = build_or_defer(backbone, layers, backbone_weights, requires_grad=False)
        self.visual.requires_grad_(False)
        self.widths = list(self.visual.out_dims)
        self._encode = SentenceEncoder(sentence_encoder)
        self.text_width = self._encode.width
        self.normalization = normalization(self.visual)
        self.eval()

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """Encode sentences as ``(N, text_width)``."""
        return self._encode(sentences).mean()

    def forward(self, images: torch.Tensor, adapt: Adapt) -> None:
        """Encode images, see :class:`Tower`."""
        for level, feature in enumerate(self.visual(images).values()):
            coarse = -(-max(feature.shape[-2:]) // LARGEST_SIDE)
            tokens = F.avg_pool2d(feature, coarse, ceil_mode=True).flatten(2).transpose(1, 2)
            adapt(level, F.layer_norm(tokens, tokens.shape[-1:]), 0)


def _build_clip(name: str, pretrained: str, config: Mapping[str, Any] | None, image_size: Sequence[int]) -> tuple:
    """A CLIP, its tokenizer, and why it has no weights if it has none."""
    try:
        import open_clip  # noqa: PLC0415  an extra
        from open_clip.model import CLIP  # noqa: PLC0415
        from open_clip.tokenizer import SimpleTokenizer  # noqa: PLC0415
    except ImportError as error:
        msg = "MVFA needs open_clip for CLIP; run: pip install 'anomalib-memd[language]', or name a timm backbone."
        raise BackboneError(msg) from error
    if config is not None:
        clip = CLIP(**config)
        return clip, SimpleTokenizer(context_length=clip.context_length), None
    if name not in open_clip.list_models():
        msg = f"open_clip has no model '{name}'; see open_clip.list_models()."
        raise BackboneError(msg)
    size = tuple(image_size)
    try:
        clip = open_clip.create_model(name, pretrained, force_image_size=size, require_pretrained=True)
        lacking = None
    except Exception as error:
        if pretrained not in open_clip.list_pretrained_tags_by_model(name):
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            msg = f"{name} has no weights '{pretrained}' ({error}); name a file, or one of {tags}."
            raise BackboneError(msg) from error
        msg = (
            f"The weights '{pretrained}' of {name} could not be fetched ({type(error).__name__}: {error}). Without a "
            f"network name a file with pretrained=FILE, point HF_HOME at a filled cache and set HF_HUB_OFFLINE=1, or "
            f"take a backbone of timm with backbone=NAME."
        )
        lacking = WeightsNotFetchedError(msg)
        clip = open_clip.create_model(name, force_image_size=size, pretrained_text=False)
    return clip, open_clip.get_tokenizer(name), lacking
