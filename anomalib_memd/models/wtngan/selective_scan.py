"""The selective scan of a state space model, as short loops instead of one over all positions."""

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def selective_scan(
    x: torch.Tensor,
    step: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
) -> torch.Tensor:
    r"""Run a selective state space model along sequences.

    .. math::
        h_t = \exp(\Delta_t A) h_{t-1} + \Delta_t B_t x_t, \qquad y_t = C_t^\top h_t + D x_t

    Args:
        x: Input ``(L, B, G, C)``: positions, images, groups (directions), channels.
        step: Step :math:`\Delta`, positive, of the same shape.
        a: State matrix, diagonal and negative, ``(G, C, N)``.
        b: Input weights ``(L, B, G, N)``.
        c: Output weights ``(L, B, G, N)``.
        d: Skip weights ``(G, C)``.

    Returns:
        Output ``(L, B, G, C)``.

    Source:
        Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, eq. 2 and 4.
    """
    decay = torch.exp(step[..., None] * a)
    drive = (step * x)[..., None] * b[..., None, :]
    states = linear_recurrence(decay, drive)
    return torch.einsum("lbgcn,lbgn->lbgc", states, c) + d * x


def linear_recurrence(decay: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
    """All states of ``h[t] = decay[t] * h[t - 1] + drive[t]``, starting from zero.

    The sequence is cut into about ``sqrt(L)`` chunks. All chunks advance together from zero to their ends; what leaves
    each is carried into the next; then all advance together again from what enters them. That makes ``3 sqrt(L)``
    steps of Python and a constant number of passes over the memory, and keeps two tensors for the backward pass.

    Args:
        decay: Factors, ``(L, ...)``.
        drive: Inputs, of the same shape.

    Returns:
        States, of the same shape.

    Raises:
        ValueError: If the shapes differ.
    """
    if decay.shape != drive.shape:
        msg = f"decay and drive need one shape, got {tuple(decay.shape)} and {tuple(drive.shape)}."
        raise ValueError(msg)
    if torch.is_grad_enabled() and (decay.requires_grad or drive.requires_grad):
        return _LinearRecurrence.apply(decay, drive)
    return _recur(decay, drive)


def _recur(decay: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
    length = decay.shape[0]
    size = math.ceil(math.sqrt(length))
    missing = -length % size
    if missing:
        decay, drive = (torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) for part in (decay, drive))
    decay, drive = (part.unflatten(0, (-1, size)) for part in (decay, drive))
    last = drive[:-1, 0]
    for t in range(1, size):
        last = torch.addcmul(drive[:-1, t], decay[:-1, t], last)
    entering = [torch.zeros_like(drive[0, 0])]
    for own, factor in zip(last, decay[:-1].prod(1), strict=True):
        entering.append(torch.addcmul(own, factor, entering[-1]))
    states = [torch.stack(entering)]
    for t in range(size):
        states.append(torch.addcmul(drive[:, t], decay[:, t], states[-1]))
    return torch.stack(states[1:], 1).flatten(0, 1)[:length]


class _LinearRecurrence(torch.autograd.Function):
    """The gradient of a linear recurrence is the same recurrence, run backwards."""

    @staticmethod
    def forward(ctx: Any, decay: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        states = _recur(decay, drive)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        decay, states = ctx.saved_tensors
        following = torch.cat([decay[1:], torch.zeros_like(decay[:1])])
        of_drive = _recur(following.flip(0), gradient.flip(0)).flip(0)
        previous = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
        return of_drive * previous, of_drive
