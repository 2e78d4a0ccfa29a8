"""Contrastive training of the text and vision towers (CLIP, 2103.00020)."""

from __future__ import annotations

import time

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from zoo.parts import token_ids
from zoo.train import data, loop
from zoo.worlds import World

STEPS, BATCH, RATE = 900, 256, 1e-3


def build(world: World, tokenizer: CLIPTokenizer, tower: int = 1) -> CLIPModel:
    """Untrained towers; ``tower`` says which text encoder of an SDXL world is meant."""
    size = world.sizes
    width, layers = (size.text_width, size.text_layers) if tower == 1 else (size.second_width, size.second_layers)
    shape = {"hidden_size": width, "intermediate_size": 4 * width}
    shape |= {"num_hidden_layers": layers, "num_attention_heads": 4, "projection_dim": width}
    # OpenCLIP's towers, which SD2 and the second place of SDXL have, use the exact function.
    exact = world.family == "sd2" or tower == 2
    text = shape | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": size.context,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_act": "gelu" if exact else "quick_gelu",
    }
    vision = shape | {"image_size": 64, "patch_size": 8}
    torch.manual_seed(world.seed + tower - 1)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))


def train(world: World, tokenizer: CLIPTokenizer, tower: int = 1) -> CLIPModel:
    """Train both towers; resumes from the last checkpoint of this world."""
    model, steps = build(world, tokenizer, tower).to(loop.DEVICE), loop.scaled(STEPS)
    images, ids = data.training_tensor(world), token_ids(tokenizer, [s.caption for s in data.training_samples(world)])
    optimiser = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.05)
    path, first = loop.build_dir(world.name) / f"clip{'' if tower == 1 else tower}.ckpt", 0
    if state := loop.resume(path):
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]

    def losses(pick: torch.Tensor) -> torch.Tensor:
        pixels = data.to_tensor(images[pick.to(images.device)])
        return model(input_ids=ids[pick].to(loop.DEVICE), pixel_values=pixels, return_loss=True).loss

    model.train()
    probe = torch.arange(min(BATCH, len(ids)))
    fast = first < steps and loop.bf16_is_faster(lambda: losses(probe).backward())
    started = time.time()
    for step in range(first, steps):
        pick = torch.randperm(len(ids), generator=torch.Generator().manual_seed(step))[:BATCH].sort().values
        loop.set_rate(optimiser, loop.warm_cosine(step, steps, RATE))
        with loop.autocast(fast):
            loss = losses(pick)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"clip {step} loss {loss.item():.3f} bf16 {fast} {time.time() - started:.0f} s", flush=True)
        if step % 150 == 149:
            loop.save(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1})
    if first < steps:
        loop.save(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": steps})
    return model.eval()
