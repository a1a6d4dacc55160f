"""Fusion of the map of an image with a text about it."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.gate import Gate
from anomalib_memd.components.sentences import EncodedText


class FusionLayer(nn.Module):
    r"""The text asks the image, and a gate decides how much of the answer each location takes.

    Queries come from the tokens of the text, keys and values from the locations of the image. The answers are averaged
    over the tokens, which gives :math:`A` for all locations; :math:`F_T` is the mean token. A feed-forward layer
    follows, as in a transformer.

    Args:
        channels: Number of channels of the map and, once projected, of the text.
        heads: Number of attention heads; divides ``channels``.
        gated: Whether there is the gate; without, each location takes half.

    Source:
        Su and Meng, "CMG-Net", 2025. It leaves open how answers to the words of a text become those of locations.
    """

    def __init__(self, channels: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.gate = Gate(channels) if gated else None
        self.norm = nn.LayerNorm(channels)
        self.feed = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, places: torch.Tensor, text: EncodedText) -> torch.Tensor:
        """Fuse.

        Args:
            places: Locations of the image, ``(B, N, C)``.
            text: Tokens of the text, ``(B, T, C)``.

        Returns:
            Shape ``(B, N, C)``.
        """
        normed = self.norm(places)
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.query(text.tokens), *self.key_value(normed).chunk(2, dim=-1))
        )
        answers = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        attended = EncodedText(answers, text.mask).mean()[:, None].expand_as(places)
        words = text.mean()[:, None].expand_as(places)
        fused = (places + attended) / 2 if self.gate is None else self.gate(attended, places, words)
        return fused + self.feed(fused)


class TextFusion(nn.Module):
    """Several :class:`FusionLayer` at one level of a network, or, without attention, the mean token added to the map.

    Args:
        channels: Number of channels of the map.
        text_width: Number of channels of the text.
        layers: Number of layers; 0 adds the mean token.
        heads: Number of attention heads; divides ``channels``.
        gated: See :class:`FusionLayer`.
    """

    def __init__(self, channels: int, text_width: int, layers: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.project = nn.Linear(text_width, channels)
        self.layers = nn.ModuleList(FusionLayer(channels, heads, gated) for _ in range(layers))

    def forward(self, x: torch.Tensor, text: EncodedText) -> torch.Tensor:
        """Fuse maps ``(B, C, h, w)`` with texts of ``B`` images; the result has the shape of the maps."""
        projected = EncodedText(self.project(text.tokens), text.mask)
        if not self.layers:
            return x + projected.mean()[..., None, None]
        places = x.flatten(2).mT
        for layer in self.layers:
            places = layer(places, projected)
        return places.mT.reshape(x.shape)
