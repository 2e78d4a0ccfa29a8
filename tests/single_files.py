"""Single files in the layouts of the original trainers, made from diffusers folders: the way back of diffusers'
conversion, so that what it reads can be compared with what was written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

State = dict[str, Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPENCLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def single_file(folder: Path, *, openclip: bool = False) -> State:
    """The tensors of a Stable Diffusion folder under LDM's names; SDXL's where it has two text encoders."""
    xl = (folder / "text_encoder_2").is_dir()
    made = {f"model.diffusion_model.{k}": v for k, v in ldm_unet(folder).items()}
    made |= {f"first_stage_model.{k}": v for k, v in ldm_vae(folder).items()}
    first, second = _weights(folder, "text_encoder"), _weights(folder, "text_encoder_2") if xl else {}
    if openclip:
        made |= {f"cond_stage_model.model.{k}": v for k, v in open_clip(first).items()}
    else:
        prefix = "conditioner.embedders.0.transformer." if xl else "cond_stage_model.transformer."
        made |= {prefix + (k if k.startswith("text_model.") else f"text_model.{k}"): v for k, v in first.items()}
    if xl:
        made |= {f"conditioner.embedders.1.model.{k}": v for k, v in open_clip(second).items()}
    return made


def _weights(folder: Path, component: str) -> State:
    file = next(f for f in sorted((folder / component).glob("*.safetensors")))
    return safetensors.torch.load_file(file)


def ldm_unet(folder: Path) -> State:
    config = json.loads((folder / "unet/config.json").read_text())
    layers, blocks = config["layers_per_block"], len(config["block_out_channels"])
    weights = _weights(folder, "unet")
    # An upsampler comes after whatever its block has before it.
    behind = {b: 2 if f"up_blocks.{b}.attentions.0.norm.weight" in weights else 1 for b in range(blocks)}
    return {_unet_name(name, layers, behind): value for name, value in weights.items()}


def _unet_name(name: str, layers: int, behind: Mapping[int, int]) -> str:
    for ours, theirs in UNET_ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    if match := re.match(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.*)", name):
        block, kind, layer, rest = int(match[1]), match[2], int(match[3]), match[4]
        number = 1 + block * (layers + 1) + (layers if kind == "downsamplers" else layer)
        if kind == "downsamplers":
            return f"input_blocks.{number}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{number}." + (f"0.{_resnet(rest)}" if kind == "resnets" else f"1.{rest}")
    if match := re.match(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(.*)", name):
        block, kind, layer, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "upsamplers":
            return f"output_blocks.{block * (layers + 1) + layers}.{behind[block]}.{rest}"
        number = block * (layers + 1) + layer
        return f"output_blocks.{number}." + (f"0.{_resnet(rest)}" if kind == "resnets" else f"1.{rest}")
    match = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name)
    assert match, name
    if match[1] == "attentions":
        return f"middle_block.1.{match[3]}"
    return f"middle_block.{2 * int(match[2])}.{_resnet(match[3])}"


def _resnet(rest: str) -> str:
    """A part of a residual block; diffusers' conversion calls those of the UNet as the original does."""
    part, _, end = rest.rpartition(".")
    return f"{RESNET[part]}.{end}"


def ldm_vae(folder: Path) -> State:
    blocks = len(json.loads((folder / "vae/config.json").read_text())["block_out_channels"])
    return dict(_vae_item(name, value, blocks) for name, value in _weights(folder, "vae").items())


def _vae_item(name: str, value: Tensor, blocks: int) -> tuple[str, Tensor]:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    up = re.match(r"decoder\.up_blocks\.(\d+)", name)
    if up:
        name = name.replace(f"up_blocks.{up[1]}", f"up.{blocks - 1 - int(up[1])}")
        name = re.sub(r"resnets\.(\d+)", r"block.\1", name).replace("upsamplers.0", "upsample")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0" in name:
        for ours, theirs in VAE_ATTENTION.items():
            name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
        if value.ndim == 2:  # the original attention is made of convolutions
            value = value[:, :, None, None]
    return name, value


def open_clip(weights: State) -> State:
    """A text encoder as OpenCLIP stores it: queries, keys and values in one tensor, the projection transposed."""
    plain = {name.removeprefix("text_model."): value for name, value in weights.items()}
    made: State = {}
    for name, value in plain.items():
        match = re.match(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", name)
        if match and match[2] == "self_attn.q_proj":
            parts = [plain[name.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            made[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}"] = torch.cat(parts)
        elif match and match[2] in OPENCLIP:
            made[f"transformer.resblocks.{match[1]}.{OPENCLIP[match[2]]}.{match[3]}"] = value
    made["token_embedding.weight"] = plain["embeddings.token_embedding.weight"]
    made["positional_embedding"] = plain["embeddings.position_embedding.weight"]
    made["ln_final.weight"], made["ln_final.bias"] = plain["final_layer_norm.weight"], plain["final_layer_norm.bias"]
    if "text_projection.weight" in plain:
        made["text_projection"] = plain["text_projection.weight"].T.contiguous()
    return made
