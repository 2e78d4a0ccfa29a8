"""Chooses the compute type by measuring: some processors emulate bfloat16 a hundred times slower than float32."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch

CANDIDATES = (torch.bfloat16, torch.float16)
PASSES = 3
# Rounding costs accuracy, so another type than float32 must be worth it.
WORTHWHILE = 0.9


@torch.no_grad()
def fastest_dtype(unet: Any, context_length: int, batch: int = 4) -> torch.dtype:
    """The type in which a UNet pass takes the least time on its device; float32 unless another is clearly faster."""
    best_dtype, plain = torch.float32, _seconds(unet, context_length, batch, PASSES)
    best = plain
    for dtype in CANDIDATES:
        try:
            trial = torch.nn.Module.to(copy.deepcopy(unet), dtype)
            # One pass first: a type that is emulated would take minutes for all of them.
            if _seconds(trial, context_length, batch, 1) > 4 * plain:
                continue
            seconds = _seconds(trial, context_length, batch, PASSES)
        except RuntimeError:  # the device has no kernel for this type
            continue
        if seconds < min(best, WORTHWHILE * plain):
            best_dtype, best = dtype, seconds
    return best_dtype


def _seconds(unet: Any, context_length: int, batch: int, passes: int) -> float:
    """The least wall-clock time of a pass, after one that warms up."""
    size, weight = unet.config.sample_size, next(unet.parameters())
    height, width = (size, size) if isinstance(size, int) else size
    latents = torch.zeros(batch, unet.config.in_channels, height, width, device=weight.device, dtype=weight.dtype)
    text = torch.zeros(batch, context_length, unet.config.cross_attention_dim, device=weight.device, dtype=weight.dtype)
    times: list[float] = []
    for _ in range(passes + 1):
        start = time.perf_counter()
        unet(latents, 500, encoder_hidden_states=text).sample.float().cpu()  # the copy waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:])
