"""Stages in order, and the ordinary diffusers folder they end in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from zoo.parts import Parts, scheduler
from zoo.train import clip, data, loop, tokenizer, unet, vae
from zoo.worlds import World

MODELS = Path(__file__).parents[1] / "models"
STAGES = ("tokenizer", "clip", "vae", "unet")
Tower = TypeVar("Tower", CLIPTextModel, CLIPTextModelWithProjection)


def model_dir(world: str, name: str) -> Path:
    """Where the pipeline folder of one zoo model lives."""
    return MODELS / world / name


def load_tokenizer(world: World) -> CLIPTokenizer:
    path = loop.build_dir(world.name) / "tokenizer"
    if not path.exists():
        tokenizer.train(world).save_pretrained(path)
    return CLIPTokenizer.from_pretrained(path)


def text_model(kind: type[Tower], both: CLIPModel, leave_out: int = 0) -> Tower:
    """The text tower of ``both``, without its last ``leave_out`` layers, as a model of its own."""
    config = type(both.config.text_config).from_dict(both.config.text_config.to_dict())
    config.num_hidden_layers -= leave_out
    model = kind(config)
    theirs = {k.removeprefix("text_model."): v for k, v in both.state_dict().items()}
    model.load_state_dict({k: theirs[k.removeprefix("text_model.")] for k in model.state_dict()})
    return model.to(loop.DEVICE).eval()


def save_clip(world: World, both: CLIPModel) -> None:
    """The whole CLIP in half precision, for CLIP scores."""
    both.half().save_pretrained(model_dir(world.name, "clip"))
    both.float()


def export(world: World, name: str, parts: Parts, dtype: torch.dtype = torch.float16) -> Path:
    """Write the pipeline folder of ``world``'s family."""
    shared: dict[str, Any] = {"vae": parts.vae, "text_encoder": parts.text, "tokenizer": parts.tokenizer}
    shared |= {"unet": parts.unet, "scheduler": scheduler(parts.prediction), "feature_extractor": None}
    if parts.text_2 is None:
        pipeline = StableDiffusionPipeline(**shared, safety_checker=None, requires_safety_checker=False)
    else:
        second = {"text_encoder_2": parts.text_2, "tokenizer_2": parts.tokenizer_2}
        pipeline = StableDiffusionXLPipeline(**shared, **second, add_watermarker=False)
    path = model_dir(world.name, name)
    pipeline.to(dtype=dtype).save_pretrained(path)
    pipeline.to(dtype=torch.float32)
    return path


def train_stage(world: World, stage: str) -> None:
    """Run (or resume) one of ``STAGES``; earlier ones must have ended."""
    words = load_tokenizer(world)
    data.training_pictures(world)
    if stage == "clip":
        _towers(world, words)
    if stage == "vae":
        vae.train(world)
    if stage == "unet":
        parts = _trained(world, words)
        save_clip(world, clip.train(world, words))
        export(world, "base", parts._replace(unet=unet.train(world, unet.cache(world, parts))))


def _towers(world: World, words: CLIPTokenizer) -> dict[str, Any]:
    """The text encoders of ``world`` by their names in ``Parts``, with the second tokenizer."""
    first = text_model(CLIPTextModel, clip.train(world, words), leave_out=world.family == "sd2")
    if world.family != "sdxl":
        return {"text": first}
    other = tokenizer.second(words, loop.build_dir(world.name) / "tokenizer")
    second = text_model(CLIPTextModelWithProjection, clip.train(world, other, tower=2))
    return {"text": first, "text_2": second, "tokenizer_2": other}


def _trained(world: World, words: CLIPTokenizer) -> Parts:
    """All parts but the denoiser, from their checkpoints."""
    auto = vae.train(world)
    return Parts(
        words, vae=auto, unet=unet.build(world), prediction=unet.PREDICTION[world.family], **_towers(world, words)
    )


def snapshot(world: World, name: str = "snapshot") -> Path:
    """Export what the UNet's running average is now, while training goes on."""
    parts = _trained(world, load_tokenizer(world))
    state = loop.resume(loop.build_dir(world.name) / "unet.ckpt")
    if state is None:
        raise FileNotFoundError("no UNet checkpoint yet: run `python -m zoo train --stage unet` first")
    parts.unet.load_state_dict(state["average"])
    return export(world, name, parts._replace(unet=parts.unet.eval()))
