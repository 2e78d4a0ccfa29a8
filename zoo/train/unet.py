"""Training of the conditional UNet on cached latents and text outputs (DDPM 2006.11239, min-SNR 2303.09556)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from zoo.train import data, loop
from zoo.train.clip import token_ids
from zoo.worlds import World

BATCH, RATE = 64, 8e-4
EMA, DROPOUT, GAMMA = 0.999, 0.1, 5.0
NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build(world: World) -> UNet2DConditionModel:
    size = world.sizes
    torch.manual_seed(world.seed)
    return UNet2DConditionModel(
        sample_size=64 // 2 ** (len(size.vae_channels) - 1),
        in_channels=size.latent_channels,
        out_channels=size.latent_channels,
        block_out_channels=size.unet_channels,
        layers_per_block=size.unet_layers,
        cross_attention_dim=size.text_width,
        attention_head_dim=size.unet_heads,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * len(size.unet_channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(size.unet_channels),
    )


@dataclass
class Cache:
    """Scaled latents [N, C, h, w] and text outputs [N, L, D] (half precision), and the empty caption's [1, L, D]."""

    latents: torch.Tensor
    hidden: torch.Tensor
    empty: torch.Tensor


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, images, chunk: int = 250) -> torch.Tensor:
    """Scaled latent means of uint8 pictures [N, 64, 64, 3], in half precision."""
    parts = (data.to_tensor(images[i : i + chunk]) for i in range(0, len(images), chunk))
    return torch.cat([(vae.encode(p).latent_dist.mean * vae.config.scaling_factor).half() for p in parts])


@torch.no_grad()
def encode_texts(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str], chunk: int = 500) -> torch.Tensor:
    """What the pipeline feeds to the UNet, [N, L, D], in half precision."""
    parts = (token_ids(tokenizer, texts[i : i + chunk]) for i in range(0, len(texts), chunk))
    return torch.cat([encoder(p).last_hidden_state.half() for p in parts])


def latents(world: World, vae: AutoencoderKL) -> torch.Tensor:
    """Cached latents of the training pictures."""
    path = loop.build_dir(world.name) / "latents.pt"
    if (state := loop.resume(path)) is None:
        state = {"latents": encode_pictures(vae, data.training_pictures(world))}
        loop.save(path, state)
    return state["latents"]


def cache(world: World, vae: AutoencoderKL, encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> Cache:
    texts = [s.caption for s in data.training_samples(world)]
    hidden = encode_texts(encoder, tokenizer, texts)
    return Cache(latents(world, vae), hidden, encode_texts(encoder, tokenizer, [""]))


class DenoisingLoss:
    """Min-SNR weighted noise-prediction loss on given latents and text outputs."""

    def __init__(self) -> None:
        self.noiser = DDPMScheduler(**NOISE)
        snr = self.noiser.alphas_cumprod / (1 - self.noiser.alphas_cumprod)
        self.weight = snr.clamp(max=GAMMA) / snr

    def __call__(self, unet: UNet2DConditionModel, latents: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (len(latents),))
        predicted = unet(self.noiser.add_noise(latents, noise, t), t, hidden).sample.float()
        each = (predicted - noise).square().flatten(1).mean(1)
        # Weight relative to the plain loss would starve high noise, where layout is decided; min-SNR keeps both.
        return (each * self.weight[t]).mean() / self.weight.mean()


def draw(cached: Cache, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of ``step``; a tenth of the captions is dropped."""
    generator = torch.Generator().manual_seed(step)
    pick = torch.randint(len(cached.latents), (BATCH,), generator=generator)
    hidden = cached.hidden[pick].float()
    hidden[torch.rand(BATCH, generator=generator) < DROPOUT] = cached.empty.float()
    return cached.latents[pick].float(), hidden


def train(world: World, cached: Cache) -> UNet2DConditionModel:
    """Train the UNet and return its exponential average; resumes from the last checkpoint."""
    model, loss_of, steps = build(world), DenoisingLoss(), world.sizes.unet_steps
    average = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-2)
    path, first = loop.build_dir(world.name) / "unet.ckpt", 0
    if state := loop.resume(path):
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]
    torch.manual_seed(world.seed + first)
    fast = first < steps and loop.bf16_is_faster(lambda: loss_of(model, *draw(cached, 0)).backward())
    started = time.time()
    for step in range(first, steps):
        loop.set_rate(optimiser, loop.warm_cosine(step, steps, RATE, warm=300))
        with loop.autocast(fast):
            loss = loss_of(model, *draw(cached, step))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = min(EMA, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in model.state_dict().values()], 1 - decay)
        if step % 100 == 0 or step == steps - 1:
            print(f"unet {step} loss {loss.item():.4f} bf16 {fast} {time.time() - started:.0f} s", flush=True)
        if step % 500 == 499:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            loop.save(path, state | {"step": step + 1})
    if first < steps:
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
        loop.save(path, state | {"step": steps})
    model.load_state_dict(average)
    return model.eval()
