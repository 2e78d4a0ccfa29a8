"""Empty modules and schedulers, built from configurations as data: admitted classes and fields only."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from diffusers.models.embeddings import PatchEmbed, get_2d_sincos_pos_embed
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from sau_scan.checkpoint.families import FLOWS
from sau_scan.checkpoint.naming import is_derived
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.errors import DamagedFile

# The fields of CLIP itself: others can name attention kernels to download, or change what a call returns.
CLIP_FIELDS = frozenset(
    {
        "attention_dropout",
        "bos_token_id",
        "eos_token_id",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "pad_token_id",
        "projection_dim",
        "vocab_size",
    }
)
T5_FIELDS = frozenset(
    {
        "d_ff",
        "d_kv",
        "d_model",
        "dropout_rate",
        "eos_token_id",
        "feed_forward_proj",
        "layer_norm_epsilon",
        "num_heads",
        "num_layers",
        "pad_token_id",
        "relative_attention_max_distance",
        "relative_attention_num_buckets",
        "vocab_size",
    }
)
MOST_BLOCKS = 64  # entries of any list in a config.json; each may stand for a block
# The depths of a block within a block, and of blocks one after the other.
DEPTH_FIELDS = ("num_hidden_layers", "layers_per_block", "transformer_layers_per_block", "num_attention_layers")
ROW_FIELDS = ("num_layers", "num_single_layers")
# Places to a side that are counted out before any weight is seen; 192 is the most in use.
POSITION_FIELDS = ("sample_size", "pos_embed_max_size")
MOST_POSITIONS = 1024
PREDICTIONS = ("epsilon", "v_prediction", "sample")
# One that needs a library of its own for the noise that it adds, and one on the same betas with the same defaults.
STAND_INS = {"DPMSolverSDEScheduler": "KDPM2DiscreteScheduler"}
# Above any schedule in use; a hostile one would fill the memory.
TIMESTEP_LIMIT = 100_000


def load_scheduler(checkpoint: Checkpoint) -> Any:
    """The scheduler that the index names, from its configuration. Raises DamagedFile."""
    path = "scheduler/scheduler_config.json"
    name = checkpoint.index["scheduler"][1]
    config = checkpoint.json(path)
    failure = DamagedFile(
        f"{checkpoint.show(path)} does not describe a {name} that can be built.",
        hint="Take the scheduler folder from the checkpoint that this one was made from.",
    )
    given = config.get("trained_betas") or []
    whole = [value for value in config.values() if isinstance(value, int)]
    if not isinstance(given, list) or max([*whole, len(given)], default=0) > TIMESTEP_LIMIT:
        raise failure
    try:
        scheduler = construct(getattr(diffusers, STAND_INS.get(name, name)), config)
        if name in FLOWS:
            return _sound_flow(scheduler)
        betas, kind = scheduler.betas, scheduler.config.get("prediction_type", "epsilon")
    except Exception as error:  # constructors raise anything on hostile values
        raise failure from error
    if kind not in PREDICTIONS or not len(betas) or not bool(((betas >= 0) & (betas <= 1)).all()):
        raise failure
    return scheduler


def _sound_flow(scheduler: Any) -> Any:
    """The scheduler, if its noise runs from all to nothing; else ValueError."""
    shares = scheduler.sigmas
    if not len(shares) or not bool(((shares >= 0) & (shares <= 1)).all()) or scheduler.config.invert_sigmas:
        raise ValueError("noise that does not end")
    return scheduler


def construct(kind: Callable[..., Any], config: Mapping[str, Any]) -> Any:
    """``kind`` called with those fields of ``config`` that it takes; private ones (paths, versions) never."""
    known = inspect.signature(kind).parameters
    return kind(**{key: value for key, value in config.items() if key in known and not key.startswith("_")})


class _Unbuildable(Exception):
    """What a configuration has that no model of its kind does; the message names it."""


def empty_module(checkpoint: Checkpoint, component: str, stored_tensors: int) -> Any:
    """The module of a component without storage."""
    path = f"{component}/config.json"
    config = checkpoint.json(path)
    try:
        # Every layer stores tensors, so a depth beyond their number only serves to keep the loader busy.
        if _depth(config) > stored_tensors:
            raise _Unbuildable("more layers than tensors")
        if any(max(_numbers(config.get(key) or 1)) > MOST_POSITIONS for key in POSITION_FIELDS):
            raise _Unbuildable("more places than any picture has")
        with torch.device("meta"):
            return BUILDERS[checkpoint.index[component][1]](config)
    except Exception as error:  # constructors raise anything on hostile values, and may quote them
        reason = f": it has {error}" if isinstance(error, _Unbuildable) else ""
        raise DamagedFile(
            f"{checkpoint.show(path)} does not describe a model that can be built{reason}.",
            hint="Take config.json from the checkpoint that this one was made from.",
        ) from error


def _depth(config: Mapping[str, Any]) -> int:
    """Upper bound of the layers in one block; _Unbuildable if it is not made of whole numbers, or of too many."""
    if any(isinstance(value, list) and len(value) > MOST_BLOCKS for value in config.values()):
        raise _Unbuildable("more blocks than any model has")
    rows = max(max(_numbers(config.get(key) or 1)) for key in ROW_FIELDS)
    return rows * math.prod(max(_numbers(config.get(key) or 1)) for key in DEPTH_FIELDS)


def _numbers(value: Any) -> list[int]:
    """The whole numbers in nested lists."""
    if isinstance(value, list):
        if len(value) > TIMESTEP_LIMIT:
            raise _Unbuildable("a list that is too long")
        return [number for part in value for number in _numbers(part)] or [1]
    if type(value) is not int or value < 0:
        raise _Unbuildable("a depth that is not a whole number")
    return [value]


def _clip_config(config: Mapping[str, Any]) -> CLIPTextConfig:
    if config.get("use_attention_mask"):
        raise _Unbuildable("masked padding, which no family with this encoder has")
    return CLIPTextConfig(**{key: value for key, value in config.items() if key in CLIP_FIELDS})


def _t5(config: Mapping[str, Any]) -> Any:
    made = T5EncoderModel(T5Config(**{key: value for key, value in config.items() if key in T5_FIELDS}))
    # One table under two names: tied, it would come apart when memory is given to each of them.
    del made.shared
    return made


def _flux(config: Mapping[str, Any]) -> Any:
    made = construct(FluxTransformer2DModel, config)
    if sum(made.config.axes_dims_rope) != made.config.attention_head_dim:
        raise _Unbuildable("positions that do not fit the heads")
    return made


def _pixart(config: Mapping[str, Any]) -> Any:
    return construct(PixArtTransformer2DModel, config)


# By the class that the index names, which is an admitted one (see families).
BUILDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "CLIPTextModel": lambda config: CLIPTextModel(_clip_config(config)),
    "CLIPTextModelWithProjection": lambda config: CLIPTextModelWithProjection(_clip_config(config)),
    "T5EncoderModel": _t5,
    "UNet2DConditionModel": lambda config: construct(UNet2DConditionModel, config),
    "SD3Transformer2DModel": lambda config: construct(SD3Transformer2DModel, config),
    "FluxTransformer2DModel": _flux,
    "PixArtTransformer2DModel": _pixart,
    "Transformer2DModel": _pixart,  # its name before diffusers 0.28
    "AutoencoderKL": lambda config: construct(AutoencoderKL, config),
}


def fill_buffers(module: Any) -> None:
    """Buffers that no file stores. Raises DamagedFile for one that this loader does not know."""
    stored = module.state_dict().keys()
    for name, buffer in module.named_buffers():
        if name in stored:
            continue
        if name.endswith("pos_embed.pos_embed"):
            buffer.copy_(_positions(module.get_submodule(name.removesuffix(".pos_embed"))))
        elif is_derived(name):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
        else:
            raise DamagedFile(f"The model has an unknown buffer {name}.", hint="Its config.json is not supported.")


def _positions(embed: PatchEmbed) -> torch.Tensor:
    """As PatchEmbed makes them when it is built."""
    size, width = (embed.height, embed.width), embed.proj.out_channels
    scale = embed.interpolation_scale
    places: torch.Tensor = get_2d_sincos_pos_embed(width, size, base_size=embed.base_size, interpolation_scale=scale)
    return places.float()[None]
