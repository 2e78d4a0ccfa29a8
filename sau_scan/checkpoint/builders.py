"""Empty modules and schedulers, built from configurations as data: admitted classes and fields only."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

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
MOST_BLOCKS = 64  # entries of any list in a config.json; each may stand for a block
DEPTH_FIELDS = ("num_hidden_layers", "layers_per_block", "transformer_layers_per_block", "num_attention_layers")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
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
        scheduler = construct(getattr(diffusers, name), config)
        betas, kind = scheduler.betas, scheduler.config.get("prediction_type", "epsilon")
    except Exception as error:  # constructors raise anything on hostile values
        raise failure from error
    if kind not in PREDICTIONS or not len(betas) or not bool(((betas >= 0) & (betas <= 1)).all()):
        raise failure
    return scheduler


def construct(kind: Callable[..., Any], config: Mapping[str, Any]) -> Any:
    """``kind`` called with those fields of ``config`` that it takes; private ones (paths, versions) never."""
    known = inspect.signature(kind).parameters
    return kind(**{key: value for key, value in config.items() if key in known and not key.startswith("_")})


def empty_module(checkpoint: Checkpoint, component: str, stored_tensors: int) -> Any:
    """The module of a component without storage."""
    path = f"{component}/config.json"
    config = checkpoint.json(path)
    try:
        # Every layer stores tensors, so a depth beyond their number only serves to keep the loader busy.
        if _depth(config) > stored_tensors:
            raise ValueError("more layers than tensors")
        with torch.device("meta"):
            return BUILDERS[component](config)
    except Exception as error:  # constructors raise anything on hostile values
        raise DamagedFile(
            f"{checkpoint.show(path)} does not describe a model that can be built ({ascii(str(error))[1:160]}).",
            hint="Take config.json from the checkpoint that this one was made from.",
        ) from error


def _depth(config: Mapping[str, Any]) -> int:
    """Upper bound of the layers in one block; ValueError if it is not made of whole numbers, or of too many blocks."""
    if any(isinstance(value, list) and len(value) > MOST_BLOCKS for value in config.values()):
        raise ValueError("more blocks than any model has")
    return math.prod(max(_numbers(config.get(key) or 1)) for key in DEPTH_FIELDS)


def _numbers(value: Any) -> list[int]:
    """The whole numbers in nested lists."""
    if isinstance(value, list):
        if len(value) > TIMESTEP_LIMIT:
            raise ValueError("a list that is too long")
        return [number for part in value for number in _numbers(part)] or [1]
    if type(value) is not int or value < 0:
        raise ValueError("a depth that is not a whole number")
    return [value]


def _text_encoder(config: Mapping[str, Any]) -> Any:
    if config.get("use_attention_mask"):
        raise ValueError("padding is masked, which this family does not do")
    return CLIPTextModel(CLIPTextConfig(**{key: value for key, value in config.items() if key in CLIP_FIELDS}))


def _unet(config: Mapping[str, Any]) -> Any:
    return construct(UNet2DConditionModel, config)


def _vae(config: Mapping[str, Any]) -> Any:
    return construct(AutoencoderKL, config)


BUILDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "text_encoder": _text_encoder,
    "unet": _unet,
    "vae": _vae,
}


def fill_buffers(module: Any) -> None:
    """Buffers that no file stores. Raises DamagedFile for one that this loader does not know."""
    stored = module.state_dict().keys()
    for name, buffer in module.named_buffers():
        if name in stored:
            continue
        if not is_derived(name):
            raise DamagedFile(f"The model has an unknown buffer {name}.", hint="Its config.json is not supported.")
        buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
