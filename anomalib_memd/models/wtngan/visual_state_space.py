"""Visual state space blocks: an image is scanned along four directions."""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from .selective_scan import selective_scan

DIRECTIONS = 4
"""Along rows and along columns, forwards and backwards."""


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of ``(B, C, H, W)``.

    Each location is normalised by itself, so that an image and a crop of it are translated alike.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise; the shape ``(B, C, H, W)`` is kept."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class FourWayScan(nn.Module):
    """Selective scan of a feature map along its rows and columns, forwards and backwards; the sum of all four.

    Args:
        channels: Number of channels.
        state_size: Number of states ``N`` of each channel.
        step_rank: Rank of the projection that gives the steps.

    Source:
        Liu et al., "VMamba: Visual State Space Model", NeurIPS 2024 (SS2D).
    """

    def __init__(self, channels: int, state_size: int = 8, step_rank: int | None = None) -> None:
        super().__init__()
        self.step_rank = step_rank or math.ceil(channels / 16)
        self.state_size = state_size
        scale = channels**-0.5
        outputs = self.step_rank + 2 * state_size
        self.selection = nn.Parameter(torch.empty(DIRECTIONS, outputs, channels).uniform_(-scale, scale))
        scale = self.step_rank**-0.5
        self.step_weight = nn.Parameter(torch.empty(DIRECTIONS, channels, self.step_rank).uniform_(-scale, scale))
        # As in Mamba: steps start between 0.001 and 0.1, decays at 1 to N.
        step = torch.empty(DIRECTIONS, channels).uniform_(math.log(0.001), math.log(0.1)).exp()
        self.step_bias = nn.Parameter(step.expm1().log())
        decay = torch.arange(1, state_size + 1).log()
        self.log_decay = nn.Parameter(decay.repeat(DIRECTIONS, channels, 1))
        self.skip = nn.Parameter(torch.ones(DIRECTIONS, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scan.

        Args:
            x: Features ``(B, C, H, W)``.

        Returns:
            Features of the same shape.
        """
        rows, columns = x.flatten(2), x.mT.flatten(2)
        paths = torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)]).permute(3, 1, 0, 2)
        selected = torch.einsum("lbgc,goc->lbgo", paths, self.selection)
        step, b, c = selected.split([self.step_rank, self.state_size, self.state_size], dim=-1)
        step = F.softplus(torch.einsum("lbgr,gcr->lbgc", step, self.step_weight) + self.step_bias)
        found = selective_scan(paths, step, -self.log_decay.exp(), b, c, self.skip).permute(2, 1, 3, 0)
        along_rows = found[0] + found[2].flip(-1)
        along_columns = found[1] + found[3].flip(-1)
        height, width = x.shape[-2:]
        return along_rows.unflatten(-1, (height, width)) + along_columns.unflatten(-1, (width, height)).mT


class VisualStateSpaceBlock(nn.Module):
    """A gated four-way scan and a small perceptron, each added to its input.

    Args:
        channels: Number of channels.
        state_size: Number of states of each channel.

    Source:
        Liu et al., "VMamba: Visual State Space Model", NeurIPS 2024 (VSS block); Zhu et al., "Vision Mamba", ICML 2024.
    """

    def __init__(self, channels: int, state_size: int = 8) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.project = nn.Conv2d(channels, 2 * channels, 1)
        self.local = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.scan = FourWayScan(channels, state_size)
        self.scan_norm = ChannelNorm(channels)
        self.output = nn.Conv2d(channels, channels, 1)
        self.perceptron = nn.Sequential(
            ChannelNorm(channels),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.GELU(),
            nn.Conv2d(2 * channels, channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform features ``(B, C, H, W)``, keeping their shape."""
        content, gate = self.project(self.norm(x)).chunk(2, dim=1)
        scanned = self.scan_norm(self.scan(F.silu(self.local(content))))
        x = x + self.output(scanned * F.silu(gate))
        return x + self.perceptron(x)
