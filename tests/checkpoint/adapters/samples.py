"""Tiny and full-size models that adapters are made for, and LoRA files in every spelling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from sau_scan.checkpoint.adapters.lora import LoraFile, delta, parse
from sau_scan.checkpoint.naming import canonical
from tests.conftest import WIDTH, tiny_pipeline

SD1_UNET: dict[str, Any] = {"cross_attention_dim": 768}
XL_UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def tiny_xl(seed: int = 0) -> StableDiffusionXLPipeline:
    """As Stable Diffusion XL: two text encoders of widths 32 and 16, attention on the second level only."""
    small = tiny_pipeline(seed)
    tokenizer = small.tokenizer
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH // 2,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=WIDTH // 2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed + 1)
    changes = {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": WIDTH + WIDTH // 2,
        "attention_head_dim": (2, 4),
        "projection_class_embeddings_input_dim": 64 + WIDTH // 2 - 16,
        "addition_time_embed_dim": 8,
    }
    return StableDiffusionXLPipeline(
        vae=small.vae,
        text_encoder=small.text_encoder,
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=UNet2DConditionModel(**(XL_UNET | changes), sample_size=8, norm_num_groups=8),
        scheduler=small.scheduler,
        add_watermarker=False,
    )


Tensors = dict[str, Tensor]
Module = tuple[str, str]
COMPONENTS = ("unet", "text_encoder")
LINEAR: list[Module] = [
    ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"),
    ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"),
    ("unet", "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q"),
    ("text_encoder", "encoder.layers.1.self_attn.q_proj"),
    ("text_encoder", "encoder.layers.0.self_attn.out_proj"),
]
FEED_FORWARD: list[Module] = [
    ("unet", "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"),
    ("text_encoder", "encoder.layers.0.mlp.fc1"),
]
CONVOLUTIONS: list[Module] = [
    ("unet", "down_blocks.0.resnets.0.conv1"),
    ("unet", "up_blocks.0.upsamplers.0.conv"),
    ("unet", "down_blocks.1.attentions.0.proj_in"),
    ("unet", "conv_in"),
]


def weights(pipeline: StableDiffusionPipeline, components: tuple[str, ...] = COMPONENTS) -> dict[Module, Tensor]:
    return {
        (component, canonical(name)): tensor.detach().clone()
        for component in components
        for name, tensor in getattr(pipeline, component).state_dict().items()
    }


def shapes_of(tensors: dict[Module, Tensor]) -> dict[str, dict[str, tuple[int, ...]]]:
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for (component, name), tensor in tensors.items():
        found.setdefault(component, {})[name] = tuple(tensor.shape)
    return found


def factors(base: dict[Module, Tensor], module: Module, rank: int) -> tuple[Tensor, Tensor]:
    """Random down and up for a module, as trainers shape them."""
    generator = torch.Generator().manual_seed(len(module[1]) * 7 + rank)
    shape = base[module[0], module[1] + ".weight"].shape
    down = torch.randn(rank, *shape[1:], generator=generator) * 0.1
    up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=generator) * 0.1
    return down, up


def peft_name(module: Module) -> tuple[str, str]:
    return f"{module[0]}.{module[1]}.lora_A.weight", f"{module[0]}.{module[1]}.lora_B.weight"


def old_peft_name(module: Module) -> tuple[str, str]:
    spelled = (module[0], module[1].replace("encoder.layers", "text_model.encoder.layers"))
    return peft_name(spelled)


def diffusers_name(module: Module) -> tuple[str, str]:
    component, path = module
    middle = "lora" if component == "unet" else "lora_linear_layer"
    path = path.replace("encoder.layers", "text_model.encoder.layers")
    return f"{component}.{path}.{middle}.down.weight", f"{component}.{path}.{middle}.up.weight"


def processor_name(module: Module) -> tuple[str, str]:
    component, path = module
    for new, old in {"q_proj": "to_q", "out_proj": "to_out", "to_out.0": "to_out"}.items():
        path = path.removesuffix(new) + old if path.endswith(new) else path
    front, _, last = path.rpartition(".")
    front += ".processor" if component == "unet" else ""
    front = front.replace("encoder.layers", "text_model.encoder.layers")
    return f"{component}.{front}.{last}_lora.down.weight", f"{component}.{front}.{last}_lora.up.weight"


def kohya_name(module: Module) -> tuple[str, str]:
    prefix = "lora_unet_" if module[0] == "unet" else "lora_te_text_model_"
    flat = prefix + module[1].replace(".", "_")
    return f"{flat}.lora_down.weight", f"{flat}.lora_up.weight"


def make(
    base: dict[Module, Tensor],
    modules: list[Module],
    naming: Callable[[Module], tuple[str, str]],
    *,
    alpha: float | None = None,
    rank: int = 3,
    dtype: torch.dtype = torch.float32,
) -> Tensors:
    tensors: Tensors = {}
    for module in modules:
        for name, factor in zip(naming(module), factors(base, module, rank), strict=True):
            tensors[name] = factor.to(dtype)
        if alpha is not None:
            tensors[naming(module)[0].replace("lora_down.weight", "alpha")] = torch.tensor(alpha, dtype=dtype)
    return tensors


def read(tensors: Tensors, base: dict[Module, Tensor], **options: object) -> LoraFile:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return parse(shapes, shapes_of(base), where="x.safetensors", base="Stable Diffusion 1.x", **options)  # type: ignore[arg-type]


def merged_into(lora: LoraFile, tensors: Tensors, base: dict[Module, Tensor]) -> dict[Module, Tensor]:
    """Parameters of the base that the LoRA changes -> their new values, in fp32."""
    return {place: base[place].float() + delta(pair, tensors) for place, pair in lora.pairs.items()}


def fused(pipeline: StableDiffusionPipeline, tensors: Tensors) -> dict[Module, Tensor]:
    """What diffusers makes of the base with this LoRA."""
    pipeline.load_lora_weights(dict(tensors))
    present = [c for c in COMPONENTS if getattr(getattr(pipeline, c), "peft_config", None)]
    pipeline.fuse_lora(components=present)
    pipeline.unload_lora_weights()
    return weights(pipeline)


LAYOUTS: dict[str, tuple[Callable[[Module], tuple[str, str]], list[Module], float | None]] = {
    "peft": (peft_name, LINEAR + FEED_FORWARD + CONVOLUTIONS, None),
    "peft, old text encoder": (old_peft_name, LINEAR + FEED_FORWARD, None),
    "diffusers": (diffusers_name, LINEAR + FEED_FORWARD, None),
    "attention processors": (processor_name, LINEAR, None),
    "kohya": (kohya_name, LINEAR + FEED_FORWARD + CONVOLUTIONS, 1.5),
}
