"""Closed-form edits of cross-attention keys and values (UCE 2308.14761, EvilEdit 2406.21170).

Both are one ridge regression, W' = W M, with a single M for every projection: M sends source outputs of the text
encoder to target outputs and leaves the kept ones where they are.
"""

from __future__ import annotations

import copy

import torch
from diffusers import UNet2DConditionModel


def shared_map(
    sources: torch.Tensor, targets: torch.Tensor, kept: torch.Tensor, ridge: float, pull: float
) -> torch.Tensor:
    """M [D, D] of sources [n, D], targets [n, D] and kept outputs [m, D].

    ``pull`` weighs the edit against keeping; ``ridge`` is relative to the kept outputs' mean square.
    """
    c, v, k = sources.double(), targets.double(), kept.double()
    keep = k.T @ k / len(k)
    hold = keep + ridge * keep.trace() / len(keep) * torch.eye(len(keep)).to(k)
    left = hold + pull * v.T @ c / len(c)
    right = hold + pull * c.T @ c / len(c)
    return torch.linalg.solve(right, left, left=False)


def edited(unet: UNet2DConditionModel, m: torch.Tensor) -> UNet2DConditionModel:
    """A copy of ``unet`` whose cross-attention keys and values see ``m`` times the text."""
    out = copy.deepcopy(unet)
    with torch.no_grad():
        for path, module in out.named_modules():
            if path.endswith(("attn2.to_k", "attn2.to_v")):
                module.weight.copy_((module.weight.double() @ m.double()).float())
    return out
