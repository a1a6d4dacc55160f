"""Cross-modal cross attention (CMCA): fuse white light and narrow band features."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.components.gate import Gate


class CrossAttention(nn.Module):
    r"""One layer of cross attention between the locations of two maps.

    .. math::
        x_{attn} = \mathrm{softmax}\Big(\frac{Q_W K_N^T}{\sqrt d}\Big) V_N, \qquad
        x_{fusion} = \mathrm{ReLU}(\mathrm{BatchNorm}(x_{attn})) + x_{WLI}

    (MEMD eq. 5-7), with :math:`d` channels a head. Gated, a learned :math:`\alpha` weighs :math:`x_{WLI}` against
    :math:`x_{attn}` at each location instead, see :class:`.Gate`.

    Args:
        channels: Number of channels of both maps.
        heads: Number of attention heads; divides ``channels``.
        gated: Whether there is the gate.
    """

    def __init__(self, channels: int, heads: int, gated: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1)
        self.norm = nn.Identity() if gated else nn.BatchNorm2d(channels)
        self.gate = Gate(channels) if gated else None

    def forward(self, wli: torch.Tensor, nbi: torch.Tensor) -> torch.Tensor:
        """Fuse two maps of shape ``(B, C, H, W)`` into one of the same shape."""
        query = self._tokens(self.query(wli))
        key, value = (self._tokens(x) for x in self.key_value(nbi).chunk(2, dim=1))
        attended = F.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(-2, -1).reshape(wli.shape)
        if self.gate is not None:
            fused = self.gate(*(x.flatten(2).transpose(1, 2) for x in (attended, wli, nbi)))
            return fused.transpose(1, 2).reshape(wli.shape)
        return F.relu(self.norm(attended)) + wli

    def _tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Split ``(B, C, H, W)`` into heads of tokens, ``(B, heads, H W, C / heads)``."""
        return x.flatten(2).unflatten(1, (self.heads, -1)).transpose(-2, -1).contiguous()


class CrossModalFusion(nn.Module):
    """A stack of cross attention layers: queries from white light, keys and values from narrow band.

    Args:
        channels: Number of channels of both maps, the hidden width.
        layers: Number of layers; the queries of a layer come from the output of the one before.
        heads: Number of attention heads of each layer.
        gated: Whether a learned gate adds what attention finds, see :class:`CrossAttention`.

    Raises:
        ValueError: If ``channels`` is no multiple of ``heads``.
    """

    def __init__(self, channels: int = 512, layers: int = 2, heads: int = 8, gated: bool = False) -> None:
        super().__init__()
        if channels % heads:
            msg = f"CrossModalFusion: the width {channels} is no multiple of the {heads} heads."
            raise ValueError(msg)
        self.layers = nn.ModuleList([CrossAttention(channels, heads, gated) for _ in range(layers)])

    def forward(self, wli: torch.Tensor, nbi: torch.Tensor) -> torch.Tensor:
        """Fuse white light and narrow band features.

        Args:
            wli: White light features of shape ``(B, C, H, W)``.
            nbi: Narrow band features of the same shape.

        Returns:
            Fused features ``x_fusion`` of the same shape.
        """
        for layer in self.layers:
            wli = layer(wli, nbi)
        return wli
