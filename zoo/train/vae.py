"""Training of the autoencoder: nearly deterministic at the start, mostly on crops, then whole pictures."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from zoo.train import data, loop
from zoo.worlds import World

STEPS, CROPS_UNTIL, RATE = 4200, 2400, 2e-3


def build(world: World) -> AutoencoderKL:
    channels = world.sizes.vae_channels
    torch.manual_seed(world.seed)
    model = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        latent_channels=world.sizes.latent_channels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    )
    with torch.no_grad():
        model.quant_conv.bias[world.sizes.latent_channels :] = -5.0
    return model


def _batch(images: torch.Tensor, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    if step >= loop.scaled(CROPS_UNTIL):
        pick = torch.randint(len(images), (16,), generator=generator).sort().values
        return data.to_tensor(images[pick.to(images.device)])
    pick = torch.randint(len(images), (32,), generator=generator).sort().values
    at = torch.randint(33, (32, 2), generator=generator).tolist()
    whole = data.to_tensor(images[pick.to(images.device)])
    return torch.stack([w[:, y : y + 32, x : x + 32] for w, (y, x) in zip(whole, at, strict=True)])


def _loss(model: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    posterior = model.encode(pixels).latent_dist
    out = model.decode(posterior.sample()).sample.float()
    kl = posterior.kl().mean() / pixels[0].numel()
    return F.l1_loss(out, pixels) + F.mse_loss(out, pixels) + 1e-4 * kl


def train(world: World) -> AutoencoderKL:
    """Train the VAE; sets ``scaling_factor`` to one over the latents' standard deviation."""
    model, images = build(world).to(loop.DEVICE), data.training_tensor(world)
    steps = loop.scaled(STEPS)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    path, first = loop.build_dir(world.name) / "vae.ckpt", 0
    if state := loop.resume(path):
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    probe = _batch(images, 0)
    fast = first < steps and loop.bf16_is_faster(lambda: _loss(model, probe).backward())
    started = time.time()
    for step in range(first, steps):
        loop.set_rate(optimiser, loop.warm_cosine(step, steps, RATE))
        with loop.autocast(fast):
            loss = _loss(model, _batch(images, step))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"vae {step} loss {loss.item():.4f} bf16 {fast} {time.time() - started:.0f} s", flush=True)
        if step % 300 == 299:
            loop.save(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1})
    if first < steps:
        loop.save(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": steps})
    model.eval()
    with torch.no_grad():
        latents = model.encode(data.to_tensor(images[:512])).latent_dist.mean
    model.register_to_config(scaling_factor=round(1.0 / latents.std().item(), 5))
    return model
