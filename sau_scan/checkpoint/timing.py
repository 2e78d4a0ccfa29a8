"""Chooses the compute type by measuring: some processors emulate bfloat16 a hundred times slower than float32."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from sau_scan.checkpoint.model import DiffusionModel

CANDIDATES = (torch.bfloat16, torch.float16)
PASSES = 3
# Rounding costs accuracy, so another type than float32 must be worth it.
WORTHWHILE = 0.9


@torch.no_grad()
def fastest_dtype(model: DiffusionModel, batch: int = 4) -> torch.dtype:
    """The type in which a pass of the denoiser takes the least time; float32 unless another is clearly faster.

    ``model`` is in float32.
    """
    text = model.encode(model.token_ids([""] * batch)).hidden
    best_dtype, plain = torch.float32, _seconds(model, text, PASSES)
    best = plain
    for dtype in CANDIDATES:
        try:
            trial = replace(model, unet=torch.nn.Module.to(copy.deepcopy(model.unet), dtype), dtype=dtype)
            # One pass first: a type that is emulated would take minutes for all of them.
            if _seconds(trial, text, 1) > 4 * plain:
                continue
            seconds = _seconds(trial, text, PASSES)
        except RuntimeError:  # the device has no kernel for this type
            continue
        if seconds < min(best, WORTHWHILE * plain):
            best_dtype, best = dtype, seconds
    return best_dtype


def _seconds(model: DiffusionModel, text: torch.Tensor, passes: int) -> float:
    """The least wall-clock time of a pass, after one that warms up."""
    latents = torch.zeros(len(text), *model.latent_shape, device=model.device)
    times: list[float] = []
    for _ in range(passes + 1):
        start = time.perf_counter()
        model.predict_noise(latents, 500, text).float().cpu()  # the copy waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:])
