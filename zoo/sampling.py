"""Pictures from a zoo model: DDIM with guidance in batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import diffusers
import torch
import transformers

from zoo.parts import Parts, Text, denoise, encode, load, scheduler, unconditional
from zoo.train import loop

__all__ = ["GUIDANCE", "STEPS", "Parts", "load", "pictures", "quiet", "start_noise", "text_outputs"]

STEPS, GUIDANCE = 25, 4.0


def quiet() -> None:
    """No progress bars and remarks from the libraries; ours are enough."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()


def start_noise(parts: Parts, count: int, seed: int) -> torch.Tensor:
    """Start noise [count, C, h, w]; that of picture i depends on ``seed`` and i alone."""
    side = parts.unet.config.sample_size
    shape = (parts.unet.config.in_channels, side, side)
    made = (torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + i)) for i in range(count))
    return torch.stack(list(made))


@torch.no_grad()
def text_outputs(parts: Parts, prompts: Sequence[str]) -> Text:
    """What the UNet is fed."""
    return encode(parts, prompts)


@torch.no_grad()
def pictures(
    parts: Parts,
    prompts: Sequence[str],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    seed: int = 0,
    batch: int = 100,
    fast: bool = False,
) -> torch.Tensor:
    """One picture for each prompt: [N, 3, 64, 64] in 0..1. ``fast``: bf16 arithmetic in the UNet."""
    noise = start_noise(parts, len(prompts), seed)
    chunks = range(0, len(prompts), batch)
    made = [_chunk(parts, prompts[i : i + batch], noise[i : i + batch], steps, guidance, fast) for i in chunks]
    return torch.cat(made)


def _chunk(
    parts: Parts, prompts: Sequence[str], x: torch.Tensor, steps: int, guidance: float, fast: bool
) -> torch.Tensor:
    x, both = x.to(parts.unet.device), Text.cat([unconditional(parts).repeat(len(prompts)), encode(parts, prompts)])
    plan = scheduler(parts.prediction)
    plan.set_timesteps(steps)
    for t in plan.timesteps:
        with loop.autocast(True) if fast else nullcontext():
            noise = denoise(parts.unet, torch.cat([x, x]), t, both)
        without, with_text = noise.chunk(2)
        x = plan.step(without + guidance * (with_text - without), t, x).prev_sample
    decoded = parts.vae.decode(x / parts.vae.config.scaling_factor).sample
    return (decoded / 2 + 0.5).clamp(0, 1).cpu()
