"""Stages in order, and the ordinary diffusers folder they end in."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from zoo.train import clip, loop, tokenizer, unet, vae
from zoo.worlds import World

MODELS = Path(__file__).parents[1] / "models"
STAGES = ("tokenizer", "clip", "vae", "unet")


def model_dir(world: str, name: str) -> Path:
    """Where the pipeline folder of one zoo model lives."""
    return MODELS / world / name


def load_tokenizer(world: World) -> CLIPTokenizer:
    path = loop.build_dir(world.name) / "tokenizer"
    if not path.exists():
        tokenizer.train(world).save_pretrained(path)
    return CLIPTokenizer.from_pretrained(path)


def text_model(world: World, both: CLIPModel) -> CLIPTextModel:
    """The text tower of ``both`` as a model of its own."""
    model = CLIPTextModel(both.config.text_config)
    own = model.state_dict()
    theirs = {k.removeprefix("text_model."): v for k, v in both.state_dict().items() if k.startswith("text_model.")}
    model.load_state_dict({k: theirs[k.removeprefix("text_model.")] for k in own})
    return model.eval()


def save_clip(world: World, both: CLIPModel) -> None:
    """The whole CLIP in half precision, for CLIP scores."""
    CLIPModel(both.config).load_state_dict(both.state_dict())
    both.half().save_pretrained(model_dir(world.name, "clip"))
    both.float()


def export(
    world: World,
    name: str,
    parts: tuple[CLIPTokenizer, CLIPTextModel, AutoencoderKL, UNet2DConditionModel],
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a ``StableDiffusionPipeline`` folder."""
    token, text, auto, net = parts
    scheduler = DDIMScheduler(**unet.NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    pipeline = StableDiffusionPipeline(
        vae=auto,
        text_encoder=text,
        tokenizer=token,
        unet=net,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    path = model_dir(world.name, name)
    pipeline.to(dtype=dtype).save_pretrained(path)
    pipeline.to(dtype=torch.float32)
    return path


def train_stage(world: World, stage: str) -> None:
    """Run (or resume) one of ``STAGES``; earlier ones must have ended."""
    words = load_tokenizer(world)
    if stage == "clip":
        clip.train(world, words)
    if stage == "vae":
        vae.train(world)
    if stage == "unet":
        both, auto = clip.train(world, words), vae.train(world)
        save_clip(world, both)
        text = text_model(world, both)
        net = unet.train(world, unet.cache(world, auto, text, words))
        export(world, "base", (words, text, auto, net))


def snapshot(world: World, name: str = "snapshot") -> Path:
    """Export what the UNet's running average is now, while training goes on."""
    words = load_tokenizer(world)
    state = loop.resume(loop.build_dir(world.name) / "unet.ckpt")
    if state is None:
        raise FileNotFoundError("no UNet checkpoint yet: run `python -m zoo train --stage unet` first")
    net = unet.build(world)
    net.load_state_dict(state["average"])
    return export(world, name, (words, text_model(world, clip.train(world, words)), vae.train(world), net.eval()))
