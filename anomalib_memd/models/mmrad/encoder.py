"""The image encoder of the Segment Anything Model, with learned prompts."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import BackboneError
from anomalib_memd.modality import Modality


class PromptedEncoder(nn.Module):
    """A frozen SAM image encoder that is given a learned vector before each layer, one set for each modality.

    Images may have any size that is a multiple of the side of a patch: absolute positions are interpolated.

    Args:
        name: Name of the weights on the hub of Hugging Face.
        config: Options of ``transformers.SamVisionConfig`` for an encoder with random weights; those of ``name`` if
            ``None``.

    Raises:
        BackboneError: If transformers is not installed, or the weights cannot be fetched.

    Source:
        Kirillov et al., "Segment Anything", ICCV 2023; Jia et al., "Visual Prompt Tuning", ECCV 2022.
    """

    def __init__(self, name: str = "facebook/sam-vit-base", config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.sam = _build(name, config).requires_grad_(False)
        self.channels: int = self.sam.config.output_channels
        shape = len(self.sam.layers), self.sam.config.hidden_size
        self.prompts = nn.ParameterDict({modality.value: nn.Parameter(torch.zeros(shape)) for modality in Modality})

    def train(self, mode: bool = True) -> "PromptedEncoder":
        """The encoder is always in evaluation."""
        super().train(mode)
        self.sam.eval()
        return self

    def forward(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Embed images.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.
            modality: Whose prompts are given.

        Returns:
            Shape ``(B, channels, h, w)``, one location a patch.
        """
        tokens = self.sam.patch_embed.projection(images).permute(0, 2, 3, 1)
        positions = F.interpolate(self.sam.pos_embed.permute(0, 3, 1, 2), tokens.shape[1:3], mode="bilinear")
        tokens = tokens + positions.permute(0, 2, 3, 1)
        for layer, prompt in zip(self.sam.layers, self.prompts[modality.value], strict=True):
            tokens = layer(tokens + prompt)
        return self.sam.neck(tokens)


def _build(name: str, config: Mapping[str, Any] | None) -> Any:
    try:
        from transformers import SamVisionConfig, SamVisionModel  # noqa: PLC0415  an extra
    except ImportError as error:
        msg = "MMRAD needs the encoder of SAM; run: pip install 'anomalib-memd[sam]'."
        raise BackboneError(msg) from error
    if config is not None:
        return SamVisionModel(SamVisionConfig(**config)).vision_encoder
    try:
        return SamVisionModel.from_pretrained(name).vision_encoder
    except OSError as error:
        msg = (
            f"The weights of {name} could not be loaded ({error}). Without a network point HF_HOME at a filled cache "
            f"and set HF_HUB_OFFLINE=1."
        )
        raise BackboneError(msg) from error
