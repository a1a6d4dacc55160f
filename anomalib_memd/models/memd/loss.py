"""The losses of MEMD and the temperature of its distillation."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_memd.modality import Modality

from .head import log_odds
from .options import GlobalDistance, KLDirection


class DiscriminatorLoss(nn.Module):
    """``L_dis``: cross-entropy of the logits of each location.

    Locations of the rarer class weigh more, so that small lesions count as much as the tissue around.
    """

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            logits: Logits of shape ``(B, 2, H, W)``.
            mask: Abnormal fraction of each location in [0, 1], shape ``(B, H, W)``.

        Returns:
            Scalar loss.
        """
        abnormal = mask.float()
        share = abnormal.mean().clamp(0.02, 0.98)
        # Two logits and a soft target: cross-entropy is the logistic loss of their difference.
        weight = abnormal * 0.5 / share + (1 - abnormal) * 0.5 / (1 - share)
        return F.binary_cross_entropy_with_logits(log_odds(logits).float(), abnormal, weight)


class DistillationLoss(nn.Module):
    r"""One modality's term of ``L_KD`` (MEMD eq. 8), on the logits of locations.

    .. math::
        \tau^2 \, \mathrm{KL}\big(\mathrm{softmax}(z^t / \tau) \,\|\, \mathrm{softmax}(z^s / \tau)\big)

    averaged over images and locations.

    Args:
        direction: Which distribution is the target.
    """

    def __init__(self, direction: KLDirection | str = KLDirection.TEACHER_TARGET) -> None:
        super().__init__()
        self.direction = KLDirection(direction)

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, temperature: torch.Tensor | float) -> torch.Tensor:
        """Compute the loss.

        Args:
            student: The student's logits, ``(B, 2, H, W)``.
            teacher: The teacher's logits, of the same shape; no gradient flows into them.
            temperature: Temperature ``tau`` above 0.

        Returns:
            Scalar loss.
        """
        log_student = F.log_softmax(student.float() / temperature, dim=1)
        log_teacher = F.log_softmax(teacher.detach().float() / temperature, dim=1)
        if self.direction is KLDirection.TEACHER_TARGET:
            divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
        else:
            divergence = F.kl_div(log_teacher, log_student, reduction="none", log_target=True)
        return temperature**2 * divergence.sum(1).mean()


class ModalityTemperature(nn.Module):
    """Temperatures of the two students' distillation, lower for the one that runs ahead.

    The recent distillation loss of each student (an exponential moving average), relative to the mean of
    both, scales the base temperature within bounds. With the factor ``tau^2`` in the loss the gradient on a
    logit is at most ``tau``, so a lower temperature transfers less.

    Args:
        base: Base temperature.
        bounds: Least and greatest scale.
        momentum: Weight of the past in the moving average; 0 looks at the last step alone.
        adaptive: Whether the temperature adapts; if not, both stay at ``base``.

    Raises:
        ValueError: If ``base`` or a bound is not positive, or the bounds do not enclose 1.
    """

    def __init__(
        self,
        base: float = 5.0,
        bounds: tuple[float, float] = (0.5, 2.0),
        momentum: float = 0.95,
        adaptive: bool = True,
    ) -> None:
        super().__init__()
        if base <= 0 or not 0 < bounds[0] <= 1 <= bounds[1]:
            msg = f"A temperature needs a positive base and bounds around 1, got {base} and {bounds}."
            raise ValueError(msg)
        self.base = base
        self.bounds = bounds
        self.momentum = momentum
        self.adaptive = adaptive
        self.register_buffer("recent", torch.full((len(Modality),), float("nan")))
        self.recent: torch.Tensor

    def forward(self) -> dict[Modality, torch.Tensor]:
        """The temperature of each modality, scalars."""
        scale = torch.ones_like(self.recent)
        if self.adaptive and not self.recent.isnan().any():
            scale = (self.recent / self.recent.mean().clamp_min(1e-12)).clamp(*self.bounds)
        return dict(zip(Modality, self.base * scale, strict=True))

    @torch.no_grad()
    def update(self, losses: dict[Modality, torch.Tensor]) -> None:
        """Take in the distillation losses of one step, each divided by its own ``tau^2`` scale or not.

        Args:
            losses: Scalar distillation loss of each modality, averaged over all processes.
        """
        latest = torch.stack([losses[modality].detach().to(self.recent) for modality in Modality])
        averaged = self.momentum * self.recent + (1 - self.momentum) * latest
        self.recent.copy_(torch.where(self.recent.isnan(), latest, averaged))


class GlobalCosineLoss(nn.Module):
    r"""``L_cos`` (MEMD eq. 9): bring the pooled features of both modalities close to the pooled fusion.

    .. math::
        L_{cos} = 1 - \tfrac12 \big(\cos(x_{WLI}, x_{fusion}) + \cos(x_{NBI}, x_{fusion})\big)

    Args:
        distance: The cosine, or one of its stand-ins of the paper's ablation, averaged over both pairs.
    """

    def __init__(self, distance: GlobalDistance | str = GlobalDistance.COSINE) -> None:
        super().__init__()
        self.distance = GlobalDistance(distance)

    def forward(self, wli: torch.Tensor, nbi: torch.Tensor, fusion: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            wli: White light features of shape ``(B, C, H, W)``.
            nbi: Narrow band features of the same shape.
            fusion: Fused features of the same shape.

        Returns:
            Scalar loss, in [0, 2] for the cosine.
        """
        pooled, target = [x.float().mean((-2, -1)) for x in (wli, nbi)], fusion.float().mean((-2, -1))
        if self.distance is GlobalDistance.COSINE:
            return 1 - torch.stack([F.cosine_similarity(x, target) for x in pooled]).mean()
        measure = {
            GlobalDistance.MSE: F.mse_loss,
            GlobalDistance.MAE: F.l1_loss,
            GlobalDistance.HUBER: F.huber_loss,
        }[self.distance]
        return torch.stack([measure(x, target) for x in pooled]).mean()
