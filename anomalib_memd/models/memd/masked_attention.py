"""Masked attention reconstruction (MAR): predict each location from its surroundings."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from .options import EnergyForm


class SimAM(nn.Module):
    r"""Parameter-free attention: locations that differ from the rest of their channel weigh more.

    .. math::
        E = \frac{(x - \mu)^2}{4 (v^2 + \epsilon)} + \frac{1}{2}, \qquad x_{out} = \sigma(E) \, x

    with the spatial mean :math:`\mu` and variance :math:`v^2` of each channel (MEMD eq. 3-4).

    Args:
        form: ``sigmoid(E)`` or the paper's literal ``sigmoid(1 / E)``.
        eps: Regulariser of the variance.

    Source:
        Yang et al., "SimAM: A Simple, Parameter-Free Attention Module", ICML 2021.
    """

    def __init__(self, form: EnergyForm | str = EnergyForm.SIMAM, eps: float = 1e-4) -> None:
        super().__init__()
        self.form = EnergyForm(form)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Weigh a feature map.

        Args:
            x: Features of shape ``(B, C, H, W)``.

        Returns:
            Features of the same shape.
        """
        deviation = (x - x.mean((-2, -1), keepdim=True)).square()
        degrees_of_freedom = max(x.shape[-2] * x.shape[-1] - 1, 1)
        variance = deviation.sum((-2, -1), keepdim=True) / degrees_of_freedom
        energy = deviation / (4 * (variance + self.eps)) + 0.5
        return x * torch.sigmoid(energy if self.form is EnergyForm.SIMAM else 1 / energy)


class MaskedAttentionReconstruction(nn.Module):
    r"""Reconstruct each location from four kernels at the corners of its receptive field, then weigh by SimAM.

    .. math::
        x_{mask} = \mathrm{ReLU}\Big(\sum_{i=1}^4 \mathrm{Conv}_i(\mathrm{pad}(x))\Big), \qquad
        x_{out} = \mathrm{SimAM}(x_{mask})

    (MEMD eq. 1-4). The kernels are ``k x k``, lie ``d`` cells away from the masked centre, and span a
    receptive field of side ``L = 2 k + 2 d + 1``. The centre never contributes. For ``k = 1`` the four
    kernels are one 2x2 convolution with dilation ``2 d + 2``, and are computed as such.

    Args:
        channels: Number of channels ``C``, in and out.
        kernel_size: Side ``k`` of the four kernels.
        distance: Distance ``d`` between kernels and centre.
        energy: Form of the SimAM attention.

    Raises:
        ValueError: If ``kernel_size`` is below 1 or ``distance`` below 0.

    Source:
        Ristea et al., "Self-Supervised Predictive Convolutional Attentive Block", CVPR 2022 (the kernels).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 1,
        distance: int = 1,
        energy: EnergyForm | str = EnergyForm.SIMAM,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or distance < 0:
            msg = f"kernel_size must be at least 1 and distance at least 0, got {kernel_size} and {distance}."
            raise ValueError(msg)
        self.kernel_size = kernel_size
        self.distance = distance
        # Corners in reading order: above left, above right, below left, below right.
        self.weight = nn.Parameter(torch.empty(4, channels, channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_normal_(self.weight.view(channels, -1), nonlinearity="relu")
        self.attention = SimAM(energy)

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        """Compute ``x_mask``.

        Args:
            x: Features of shape ``(B, C, H, W)``.

        Returns:
            Reconstruction of the same shape, in which no location has seen its own features.
        """
        channels, size, offset = x.shape[1], self.kernel_size, self.kernel_size + 2 * self.distance + 1
        padding = size + self.distance
        if size == 1:
            corners = self.weight.view(2, 2, channels, channels).permute(2, 3, 0, 1)
            return F.relu(F.conv2d(x, corners, self.bias, padding=padding, dilation=offset))
        height, width = x.shape[-2:]
        responses = F.conv2d(F.pad(x, [padding] * 4), self.weight.flatten(0, 1)).unflatten(1, (4, channels))
        top, bottom, left, right = (
            slice(0, height),
            slice(offset, offset + height),
            slice(0, width),
            slice(offset, offset + width),
        )
        places = ((top, left), (top, right), (bottom, left), (bottom, right))
        total = sum(responses[:, i, :, rows, columns] for i, (rows, columns) in enumerate(places))
        return F.relu(total + self.bias[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reconstruct and weigh a feature map of shape ``(B, C, H, W)``; the shape is kept."""
        return self.attention(self.mask(x))
