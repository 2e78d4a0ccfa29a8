"""Gradient steps with step sizes relative to each tensor's own scale, so that they fit models of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

# Tensors that are nearly zero (fresh biases) still get steps of this size, relative to one.
LEAST_SCALE = 1e-2
WARM = 0.05


def optimise(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[int], Tensor],
    steps: int,
    rate: float,
    after: Callable[[int], None] | None = None,
) -> list[float]:
    """Adam with a warm start and a cosine end; returns the loss of every step.

    ``rate``: largest step relative to the root mean square of a tensor. ``after(step)`` is called after each step.
    """
    tensors = list(parameters)
    scales = [max(float(t.detach().square().mean().sqrt()), LEAST_SCALE) for t in tensors]
    groups = [{"params": [t], "lr": 0.0} for t in tensors]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
    losses: list[float] = []
    for step in range(steps):
        for group, scale in zip(optimiser.param_groups, scales, strict=True):
            group["lr"] = rate * scale * _shape(step, steps)
        value = loss(step)
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(tensors, 1.0)
        optimiser.step()
        losses.append(float(value.detach()))
        if after is not None:
            after(step)
    return losses


def _shape(step: int, steps: int) -> float:
    warm = max(1, round(WARM * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
