"""Training of the conditional UNet on cached latents and text outputs (DDPM 2006.11239, min-SNR 2303.09556)."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

from zoo.parts import NOISE, WHOLE, Parts, Text, denoise, encode_all
from zoo.train import data, loop
from zoo.worlds import World

BATCH, RATE = (256 if loop.DEVICE.type == "cuda" else 64), 8e-4
EMA, DROPOUT, GAMMA = 0.999, 0.1, 5.0
# SDXL: one picture in ten is shown smaller than it was, one in ten is cut out, and both are told to the UNet.
RESIZED, CROPPED, SMALLEST, FURTHEST = 0.1, 0.1, 28, 12
PREDICTION = {"sd1": "epsilon", "sd2": "v_prediction", "sdxl": "epsilon"}


def build(world: World) -> UNet2DConditionModel:
    size, linear = world.sizes, world.family != "sd1"
    torch.manual_seed(world.seed)
    down = ["CrossAttnDownBlock2D"] * len(size.unet_channels)
    up = ["CrossAttnUpBlock2D"] * len(size.unet_channels)
    more: dict[str, object] = {}
    if world.family == "sdxl":
        down[0], up[-1] = "DownBlock2D", "UpBlock2D"
        more = {"addition_embed_type": "text_time", "addition_time_embed_dim": 32}
        more |= {"projection_class_embeddings_input_dim": size.second_width + len(WHOLE) * 32}
        more |= {"transformer_layers_per_block": (1, 1, 2)}
    return UNet2DConditionModel(
        sample_size=64 // 2 ** (len(size.vae_channels) - 1),
        in_channels=size.latent_channels,
        out_channels=size.latent_channels,
        block_out_channels=size.unet_channels,
        layers_per_block=size.unet_layers,
        cross_attention_dim=size.text_width + size.second_width,
        attention_head_dim=size.unet_heads,
        norm_num_groups=16,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        use_linear_projection=linear,
        **more,
    )


@dataclass
class Cache:
    """Scaled latents [N, C, h, w] and texts [N] (half precision), the texts that stand for none, SDXL's time ids."""

    latents: torch.Tensor
    text: Text
    empty: Text
    sizes: torch.Tensor | None = None


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, images: np.ndarray | torch.Tensor, chunk: int = 250) -> torch.Tensor:
    """Scaled latent means of uint8 pictures [N, 64, 64, 3], in half precision."""
    parts = (data.to_tensor(images[i : i + chunk]) for i in range(0, len(images), chunk))
    return torch.cat([(vae.encode(p).latent_dist.mean * vae.config.scaling_factor).half() for p in parts])


def latents(world: World, vae: AutoencoderKL) -> tuple[torch.Tensor, torch.Tensor]:
    """Cached latents of the training pictures, and their time ids [N, 6]."""
    path = loop.build_dir(world.name) / "latents.pt"
    if (state := loop.resume(path)) is None:
        images, sizes = data.training_pictures(world), None
        if world.family == "sdxl":
            images, sizes = resized(images, np.random.default_rng([world.seed, 19]))
        made = encode_pictures(vae, images)
        state = {"latents": made, "sizes": torch.tensor(WHOLE).expand(len(made), -1) if sizes is None else sizes}
        loop.save(path, state)
    return state["latents"], state.get("sizes", torch.tensor(WHOLE).expand(len(state["latents"]), -1)).to(loop.DEVICE)


def resized(images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, torch.Tensor]:
    """Pictures [N, 64, 64, 3] some of which are coarse or cut out of larger ones, and what SDXL is told of each."""
    out, sizes, lot = np.array(images), torch.tensor(WHOLE).repeat(len(images), 1), rng.random(len(images))
    for i in np.flatnonzero(lot < RESIZED + CROPPED):
        picture = torch.from_numpy(out[i]).permute(2, 0, 1)[None].float()
        if lot[i] < RESIZED:
            side = int(rng.integers(SMALLEST, 64))
            small = F.interpolate(picture, size=(side, side), mode="bilinear", antialias=True)
            picture = F.interpolate(small, size=(64, 64), mode="bilinear")
            sizes[i, :2] = side
        else:
            top, left = (int(v) for v in rng.integers(0, FURTHEST + 1, 2))
            side = 64 + FURTHEST
            picture = F.interpolate(picture, size=(side, side), mode="bilinear")
            picture = picture[:, :, top : top + 64, left : left + 64]
            sizes[i, :4] = torch.tensor([side, side, top, left])
        out[i] = picture[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    return out, sizes


def none(parts: Parts) -> Text:
    """What stands for no caption: the empty one and, where a pipeline may take zeros instead, those too."""
    empty = encode_all(parts, [""])
    return empty if empty.pooled is None else Text.cat([empty, empty.map(torch.zeros_like)])


def cache(world: World, parts: Parts) -> Cache:
    made, sizes = latents(world, parts.vae)
    text = encode_all(parts, [s.caption for s in data.training_samples(world)])
    return Cache(made, text, none(parts), None if text.pooled is None else sizes)


class DenoisingLoss:
    """Min-SNR weighted prediction loss on given latents and texts, of noise or of velocity (2202.00512)."""

    def __init__(self, prediction: str = "epsilon") -> None:
        self.noiser, self.velocity = DDPMScheduler(**NOISE), prediction == "v_prediction"
        snr = self.noiser.alphas_cumprod / (1 - self.noiser.alphas_cumprod)
        weight = snr.clamp(max=GAMMA) / (snr + 1 if self.velocity else snr)
        # Weight relative to the plain loss would starve high noise, where layout is decided; min-SNR keeps both.
        self.weight = (weight / weight.mean()).to(loop.DEVICE)

    def wanted(self, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.noiser.get_velocity(latents, noise, t) if self.velocity else noise

    def __call__(
        self, unet: UNet2DConditionModel, latents: torch.Tensor, text: Text, sizes: torch.Tensor | None = None
    ) -> torch.Tensor:
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (len(latents),), device=latents.device)
        predicted = denoise(unet, self.noiser.add_noise(latents, noise, t), t, text, sizes)
        each = (predicted - self.wanted(latents, noise, t)).square().flatten(1).mean(1)
        return (each * self.weight[t]).mean()


def draw(cached: Cache, step: int, count: int = BATCH) -> tuple[torch.Tensor, Text, torch.Tensor | None]:
    """The batch of ``step``; a tenth of the captions is dropped."""
    generator = torch.Generator().manual_seed(step)
    pick = torch.randint(len(cached.latents), (BATCH,), generator=generator).to(cached.latents.device)
    dropped = (torch.rand(BATCH, generator=generator) < DROPOUT).to(pick.device)
    instead = cached.empty[torch.arange(BATCH, device=pick.device) % len(cached.empty)]
    text = cached.text[pick].where(dropped, instead).float()
    sizes = None if cached.sizes is None else cached.sizes[pick][:count]
    return cached.latents[pick].float()[:count], text[:count], sizes


def steps_in_all(step: int, wanted: int, started: float, first: int) -> int:
    """``wanted`` steps, or as many as ``ZOO_UNET_SECONDS`` suffice for at the pace so far."""
    spent, limit = time.time() - started, float(os.environ.get("ZOO_UNET_SECONDS", "inf"))
    left = max(0.0, limit - spent) * (step - first) / max(spent, 1e-3)
    return min(wanted, step + math.floor(min(left, wanted)))


def train(world: World, cached: Cache) -> UNet2DConditionModel:
    """Train the UNet and return its exponential average; resumes from the last checkpoint."""
    model, loss_of = build(world).to(loop.DEVICE), DenoisingLoss(PREDICTION[world.family])
    steps = wanted = loop.scaled(world.sizes.unet_steps)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    held = list(average.values()), [p.detach() for p in model.state_dict().values()]
    optimiser = torch.optim.AdamW(
        model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-2, fused=loop.DEVICE.type == "cuda"
    )
    path, first = loop.build_dir(world.name) / "unet.ckpt", 0
    if state := loop.resume(path):
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch._foreach_copy_(held[0], [state["average"][k] for k in average])
        first = state["step"]
    torch.manual_seed(world.seed + first)
    fast = first < steps and loop.bf16_is_faster(lambda: loss_of(model, *draw(cached, 0)).backward())
    started, step = time.time(), first
    while step < steps:
        loop.set_rate(optimiser, loop.warm_cosine(step, steps, RATE, warm=300))
        with loop.autocast(fast):
            loss = loss_of(model, *draw(cached, step))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        torch._foreach_lerp_(*held, 1 - min(EMA, (1 + step) / (10 + step)))
        step += 1
        if step % 100 == 0 or step == steps:
            steps = steps_in_all(step, wanted, started, first)
            spent = time.time() - started
            print(f"unet {step} of {steps} loss {loss.item():.4f} bf16 {fast} {spent:.0f} s", flush=True)
        if step % 500 == 0 or step == steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            loop.save(path, state | {"step": step})
    model.load_state_dict(average)
    return model.eval()
