"""PyTorch model of CMG-Net."""

from collections.abc import Sequence

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.overlap import dice_loss
from anomalib_memd.components.sentences import EncodedText
from anomalib_memd.components.unet import UNet

from .attention import MultiAxisAttention
from .fusion import TextFusion


class CMGNetModel(nn.Module):
    r"""A U-Net with attention along axes at its bottom, and a text at its coarse levels.

    .. math::
        L = \tfrac12 \mathrm{Dice}(p, y) + \tfrac12 \mathrm{CE}(p, y).

    Args:
        default_text: Encoded text ``(1, T, text_width)`` of images that come without one; ``None`` for a network that
            knows no text.
        widths: Number of channels of each level, the finest first.
        attention: Whether there is attention at the bottom.
        fusion: Whether the text asks the image; without, its mean token is added.
        gated: Whether a learned gate weighs the answer.
        levels: Number of coarse levels at which the text comes in.
        layers: Number of fusion layers of each.
        heads: Number of attention heads of each; divides the widths of the levels.

    Raises:
        ValueError: If there are fewer levels, or a width is no multiple of ``heads``.

    Source:
        Su and Meng, "CMG-Net", 2025.
    """

    def __init__(
        self,
        default_text: EncodedText | None,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        attention: bool = True,
        fusion: bool = True,
        gated: bool = True,
        levels: int = 2,
        layers: int = 2,
        heads: int = 8,
    ) -> None:
        super().__init__()
        coarse = list(widths)[-levels:]
        if not 0 < levels <= len(widths) or any(width % heads for width in coarse):
            msg = f"The text comes in at 1 to {len(widths)} levels, whose widths are multiples of heads={heads}; got "
            msg += f"levels={levels} of widths={list(widths)}."
            raise ValueError(msg)
        self.unet = UNet(3, 1, widths)
        self.attention = MultiAxisAttention(widths[-1]) if attention else nn.Identity()
        self.fusions = nn.ModuleList()
        self.side = 2 ** (len(widths) - 1)
        """Sides of images are multiples of it; others are filled up with their rims."""
        if default_text is not None:
            channels = default_text.tokens.shape[-1]
            self.fusions.extend(TextFusion(c, channels, layers * fusion, heads, gated) for c in coarse)
            self.register_buffer("default_tokens", default_text.tokens)
            self.register_buffer("default_mask", default_text.mask)

    def log_odds(self, images: torch.Tensor, text: EncodedText | None = None) -> torch.Tensor:
        """Log odds of pixels.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.
            text: Texts of ``B`` images; the default one if ``None``.

        Returns:
            Shape ``(B, 1, H, W)``.
        """
        height, width = images.shape[-2:]
        missing = (0, -width % self.side, 0, -height % self.side)
        kept = self.unet.encode(F.pad(images, missing, mode="replicate") if any(missing) else images)
        kept[-1] = self.attention(kept[-1])
        if len(self.fusions):
            if text is None:
                count = images.shape[0]  # Unlike len(), it may change in an exported model.
                text = EncodedText(self.default_tokens.expand(count, -1, -1), self.default_mask.expand(count, -1))
            start = len(kept) - len(self.fusions)
            kept[start:] = [fusion(x, text) for fusion, x in zip(self.fusions, kept[start:], strict=True)]
        return self.unet.decode(kept)[..., :height, :width]

    def loss(self, images: torch.Tensor, masks: torch.Tensor, text: EncodedText | None = None) -> torch.Tensor:
        """Loss of images with masks ``(B, H, W)`` and texts, see the class."""
        odds, target = self.log_odds(images, text), masks.float()[:, None]
        return (dice_loss(odds.sigmoid(), target) + F.binary_cross_entropy_with_logits(odds, target)) / 2

    def forward(self, images: torch.Tensor, text: EncodedText | None = None) -> InferenceBatch:
        """Segment images.

        Args:
            images: Normalised images of shape ``(B, 3, H, W)``.
            text: Texts of ``B`` images; the default one if ``None``.

        Returns:
            Chances of pixels ``(B, 1, H, W)``; as the score of an image the largest, ``(B,)``; and what is above one
            half, as mask and label.
        """
        chances = self.log_odds(images, text).sigmoid()
        score = chances.flatten(1).amax(1)
        return InferenceBatch(pred_score=score, anomaly_map=chances, pred_label=score > 0.5, pred_mask=chances > 0.5)
