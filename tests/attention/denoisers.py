"""A tiny UNet, its inputs, sampling with it, and the processors that its attention may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor
from torch import Tensor, nn

CONTEXT, WIDTH = 7, 24
PROCESSORS: dict[str, Callable[[], Any]] = {
    "eager": AttnProcessor,
    "sdpa": AttnProcessor2_0,
    "sliced": lambda: SlicedAttnProcessor(1),
}


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**config, **changes}).eval().requires_grad_(False)


def inputs(batch: int = 2, size: tuple[int, int] = (8, 8)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, 4, *size, generator=generator)
    return latents, torch.randn(batch, CONTEXT, WIDTH, generator=generator)


def sample(unet: nn.Module, latents: Tensor, hidden: Tensor, steps: int = 3) -> Tensor:
    """Guided DDIM sampling with both halves in one batch."""
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        noise = unet(torch.cat([latents, latents]), timestep, encoder_hidden_states=hidden).sample
        negative, positive = noise.chunk(2)
        latents = scheduler.step(negative + 5 * (positive - negative), timestep, latents).prev_sample
    return latents


def hook_count(unet: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in unet.modules())


def with_processor(unet: UNet2DConditionModel, name: str) -> UNet2DConditionModel:
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(PROCESSORS[name]())
    return unet
