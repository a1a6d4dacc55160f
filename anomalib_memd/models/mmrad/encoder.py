"""Frozen image encoders with learned prompts: that of the Segment Anything Model, or a backbone in its place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models import FeatureListNet
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.backbones import BackboneError, build_backbone
from anomalib_memd.modality import Modality


class Prompted(nn.Module):
    """What MMRAD asks of an encoder: it is frozen, and has learned prompts, one set for each modality."""

    channels: int
    """Number of channels of the embedding."""

    @property
    def frozen(self) -> nn.Module:
        """What does not learn."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Prompted":
        """What is frozen is always in evaluation."""
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Embed images.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.
            modality: Whose prompts are given.

        Returns:
            Shape ``(B, channels, h, w)``.
        """
        raise NotImplementedError


class PromptedEncoder(Prompted):
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
        self.channels = self.sam.config.output_channels
        shape = len(self.sam.layers), self.sam.config.hidden_size
        self.prompts = nn.ParameterDict({modality.value: nn.Parameter(torch.zeros(shape)) for modality in Modality})

    @property
    def frozen(self) -> nn.Module:
        """All of SAM's encoder."""
        return self.sam

    def forward(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Embed images, one location a patch."""
        tokens = self.sam.patch_embed.projection(images).permute(0, 2, 3, 1)
        positions = F.interpolate(self.sam.pos_embed.permute(0, 3, 1, 2), tokens.shape[1:3], mode="bilinear")
        tokens = tokens + positions.permute(0, 2, 3, 1)
        for layer, prompt in zip(self.sam.layers, self.prompts[modality.value], strict=True):
            tokens = layer(tokens + prompt)
        return self.sam.neck(tokens)


class PromptedBackbone(Prompted):
    """A frozen backbone in the place of SAM's encoder: it is small, and its weights are easier to come by.

    A learned vector is added to what each of the layers gives, one set for each modality. SAM's neck, which brings
    features to 256 channels, is learned here.

    Args:
        name: Name of a timm model whose layers follow each other, such as a ResNet.
        layers: Its layers that have prompts, the finest first. The last one gives the features.
        weights: See :func:`~anomalib_memd.components.backbones.build_backbone`.
        channels: Number of channels of the embedding.

    Raises:
        BackboneError: If the backbone cannot be built, or its layers do not follow each other.

    Source:
        Jia et al., "Visual Prompt Tuning", ECCV 2022, which has prompts of convolutional networks too.
    """

    def __init__(
        self,
        name: str,
        layers: Sequence[str] = ("layer1", "layer2", "layer3"),
        weights: str | Path | None = None,
        channels: int = 256,
    ) -> None:
        super().__init__()
        extractor = build_backbone(name, layers, weights=weights)
        if not isinstance(extractor.feature_extractor, FeatureListNet):
            msg = f"The layers of {name} do not simply follow each other, so it takes no prompts; take a ResNet."
            raise BackboneError(msg)
        self.backbone = extractor.feature_extractor.requires_grad_(False)
        self.channels = channels
        widths = dict(zip(self.backbone.return_layers, extractor.out_dims, strict=True))
        self.prompts = nn.ModuleDict(
            {m.value: nn.ParameterDict({name: torch.zeros(width) for name, width in widths.items()}) for m in Modality}
        )
        self.neck = nn.Sequential(nn.Conv2d(extractor.out_dims[-1], channels, 1, bias=False), nn.GroupNorm(1, channels))

    @property
    def frozen(self) -> nn.Module:
        """The backbone, but not its neck."""
        return self.backbone

    def forward(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Embed images, on the grid of the last layer."""
        features, prompts = images, self.prompts[modality.value]
        for name, stage in self.backbone.items():
            features = stage(features)
            if name in prompts:  # type: ignore[operator]
                features = features + prompts[name][:, None, None]  # type: ignore[index]
        return self.neck(features)


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
