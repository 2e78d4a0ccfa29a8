"""Contrastive training of the text and vision towers (CLIP, 2103.00020)."""

from __future__ import annotations

import time

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from zoo.train import data, loop
from zoo.worlds import World

STEPS, BATCH, RATE = 900, 256, 1e-3


def build(world: World, tokenizer: CLIPTokenizer) -> CLIPModel:
    size = world.sizes
    tower = {"hidden_size": size.text_width, "intermediate_size": 4 * size.text_width}
    tower |= {"num_hidden_layers": size.text_layers, "num_attention_heads": 4, "projection_dim": size.text_width}
    text = tower | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": size.context,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_act": "quick_gelu",
    }
    vision = tower | {"image_size": 64, "patch_size": 8}
    torch.manual_seed(world.seed)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=size.text_width))


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Padded ids [N, context]."""
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids


def train(world: World, tokenizer: CLIPTokenizer) -> CLIPModel:
    """Train both towers; resumes from the last checkpoint of this world."""
    model = build(world, tokenizer)
    images, ids = data.training_pictures(world), token_ids(tokenizer, [s.caption for s in data.training_samples(world)])
    optimiser = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.05)
    path, first = loop.build_dir(world.name) / "clip.ckpt", 0
    if state := loop.resume(path):
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]

    def losses(pick: torch.Tensor) -> torch.Tensor:
        pixels = data.to_tensor(images[pick.numpy()])
        return model(input_ids=ids[pick], pixel_values=pixels, return_loss=True).loss

    model.train()
    probe = torch.arange(BATCH)
    fast = first < STEPS and loop.bf16_is_faster(lambda: losses(probe).backward())
    started = time.time()
    for step in range(first, STEPS):
        pick = torch.randperm(len(ids), generator=torch.Generator().manual_seed(step))[:BATCH].sort().values
        loop.set_rate(optimiser, loop.warm_cosine(step, STEPS, RATE))
        with loop.autocast(fast):
            loss = losses(pick)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 0 or step == STEPS - 1:
            print(f"clip {step} loss {loss.item():.3f} bf16 {fast} {time.time() - started:.0f} s", flush=True)
        if step % 150 == 149:
            loop.save(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1})
    if first < STEPS:
        loop.save(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": STEPS})
    return model.eval()
