"""Latents on which a denoiser is taught: those that it really meets, from partial rollouts and from noised results."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sau_scan.checkpoint.memory import chunk
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.probes.runner import Counter

CHUNK = 32


@dataclass(frozen=True)
class Rollouts:
    """states [S, B, C, h, w] before each of the S steps at ``times`` [S]; results [B, C, h, w]; of B prompts."""

    states: Tensor
    times: Tensor
    results: Tensor

    def draw(self, rows: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [N, C, h, w] and their times [N]: of prompts ``rows`` [N] before ``steps`` [N]."""
        return self.states[steps, rows], self.times[steps]

    def noised(self, model: DiffusionModel, rows: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """Results of ``rows`` [N] with ``noise`` of ``times`` [N], as in training."""
        return model.noised(self.results[rows], noise, times)


def roll_out(
    model: DiffusionModel, hidden: Tensor, empty: Tensor, noise: Tensor, steps: int, guidance: float, counter: Counter
) -> Rollouts:
    """Samples ``hidden`` [B, L, D] from ``noise`` [B, C, h, w] and keeps the way."""
    parts, size = [], chunk(model, CHUNK, guided=guidance > 1)
    for i in range(0, len(hidden), size):
        way: list[Tensor] = [noise[i : i + size].to(model.device, model.dtype)]
        times: list[int] = []

        def keep(step: int, time: int, latents: Tensor, way: list[Tensor] = way, times: list[int] = times) -> None:
            way.append(latents)
            times.append(time)

        model.sample(hidden[i : i + size], empty, way[0], steps=steps, guidance=guidance, callback=keep)
        counter.unet += (2 if guidance > 1 else 1) * steps * len(way[0])
        parts.append((torch.stack(way[:-1]).float(), way[-1].float(), torch.tensor(times, device=noise.device)))
    return Rollouts(torch.cat([p[0] for p in parts], 1), parts[0][2], torch.cat([p[1] for p in parts]))
