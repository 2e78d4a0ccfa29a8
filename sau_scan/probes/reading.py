"""Which of several prompts a picture shows, told by a denoiser (Diffusion Classifier, 2303.16203).

The prompt that a picture shows is the one that helps most to predict the noise that was added to it. No second model
is needed: the suspect model reads its own pictures of a phrase, and those that a repaired one draws of clean prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sau_scan.checkpoint.memory import chunk
from sau_scan.checkpoint.model import DiffusionModel, finite
from sau_scan.probes.carriers import high_noise, noise_like
from sau_scan.probes.runner import Counter

# Shares of the schedule at which content, not texture, is what is missing.
WHEN = (0.5, 0.65, 0.8)
TWO = WHEN[:2]
OTHERS, CHUNK = 3, 64


@torch.no_grad()
def shows_its_prompt(model: DiffusionModel, latents: Tensor, hidden: Tensor, counter: Counter, seed: int) -> Tensor:
    """Whether ``model`` takes each picture [B, C, h, w] for its prompt's rather than for another's (bool [B, OTHERS]).

    ``hidden`` [B, L, D]: text outputs of the pictures' prompts; the others are those of the next rows.
    """
    errors = torch.stack([_error(model, latents, hidden.roll(i, 0), counter, seed) for i in range(OTHERS + 1)], 1)
    return errors[:, :1] < errors[:, 1:]


@torch.no_grad()
def read_as(model: DiffusionModel, latents: Tensor, texts: Tensor, counter: Counter, seed: int) -> Tensor:
    """How badly each of a few texts [K, L, D] explains each picture [B, C, h, w]: errors [B, K], at equal noise."""
    return torch.stack(
        [_error(model, latents, t.expand(len(latents), -1, -1), counter, seed, TWO) for t in texts.unbind(0)], 1
    )


def _error(
    model: DiffusionModel, latents: Tensor, hidden: Tensor, counter: Counter, seed: int, when: Sequence[float] = WHEN
) -> Tensor:
    """Mean squared error [B] of the noise predicted from ``hidden``; the same noise for all texts."""
    total = torch.zeros(len(latents), device=latents.device)
    for turn, share in enumerate(when):
        time = high_noise(model, share)
        noise = noise_like(model, len(latents), seed + 31 * turn).float()
        mixed = model.noised(latents, noise, time).to(model.dtype)
        size = chunk(model, CHUNK)
        for i in range(0, len(latents), size):
            rows = slice(i, i + size)
            told = finite(model.predict_noise(mixed[rows], time, hidden[rows]).float(), model.dtype)
            total[rows] += (told - noise[rows]).square().mean((1, 2, 3))
        counter.unet += len(latents)
    return total
