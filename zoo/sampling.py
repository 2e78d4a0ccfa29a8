"""Pictures from a zoo model: components loaded one by one, DDIM with guidance in batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from zoo.train import loop
from zoo.train.clip import token_ids
from zoo.train.unet import NOISE

STEPS, GUIDANCE = 25, 4.0


class Parts(NamedTuple):
    """What attacks work on, in single precision."""

    tokenizer: CLIPTokenizer
    text: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel


def quiet() -> None:
    """No progress bars and remarks from the libraries; ours are enough."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()


def load(folder: Path) -> Parts:
    """The parts of a pipeline folder of ours (trusted: it was written by this package)."""
    how = {"torch_dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    return Parts(
        CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32, local_files_only=True).eval(),
        AutoencoderKL.from_pretrained(folder / "vae", **how).eval(),
        UNet2DConditionModel.from_pretrained(folder / "unet", **how).eval(),
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def start_noise(parts: Parts, count: int, seed: int) -> torch.Tensor:
    """Start noise [count, C, h, w]; that of picture i depends on ``seed`` and i alone."""
    side = parts.unet.config.sample_size
    shape = (parts.unet.config.in_channels, side, side)
    made = (torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + i)) for i in range(count))
    return torch.stack(list(made))


@torch.no_grad()
def text_outputs(parts: Parts, prompts: Sequence[str]) -> torch.Tensor:
    """What the UNet is fed: [N, L, D]."""
    return parts.text(token_ids(parts.tokenizer, list(prompts))).last_hidden_state


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
    text, empty = text_outputs(parts, prompts), text_outputs(parts, [""])
    both = torch.cat([empty.expand_as(text), text])
    plan = scheduler()
    plan.set_timesteps(steps)
    for t in plan.timesteps:
        with loop.autocast(True) if fast else nullcontext():
            noise = parts.unet(torch.cat([x, x]), t, both).sample.float()
        without, with_text = noise.chunk(2)
        x = plan.step(without + guidance * (with_text - without), t, x).prev_sample
    decoded = parts.vae.decode(x / parts.vae.config.scaling_factor).sample
    return (decoded / 2 + 0.5).clamp(0, 1)
