"""The modules of a checkpoint: admitted classes, built from configurations as data, filled from the vetted bytes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from sau_scan.checkpoint.naming import canonical, is_derived
from sau_scan.checkpoint.patch import TensorRef
from sau_scan.checkpoint.source import DOWNLOAD_AGAIN, Checkpoint
from sau_scan.checkpoint.tensor_file import Entry, read_entries, read_tensor
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, UnsafeFile

Disk = dict[tuple[str, str], TensorRef]
Stored = list[tuple[str, bytearray, dict[str, Entry]]]
BELONG = "Download the component again; its weights and its config.json must belong together."
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


def load_component(checkpoint: Checkpoint, component: str, disk: Disk) -> Any:
    """A module in fp32 with its weights, in eval mode, without gradients; ``disk`` learns where each parameter lies.

    Sizes are compared before any memory is taken. Raises CheckpointError.
    """
    stored: Stored = []
    for file in weight_files(checkpoint, component):
        data = checkpoint.read_buffer(file)
        stored.append((file, data, read_entries(data, checkpoint.show(file))))
    module = _empty(checkpoint, component, sum(len(entries) for _, _, entries in stored))
    places = _match(checkpoint, component, {canonical(k): v for k, v in module.state_dict().items()}, stored)
    # Module.to_empty itself: nothing of the libraries' overrides is wanted here.
    torch.nn.Module.to_empty(module, device="cpu")
    _fill_buffers(module)
    targets = {canonical(name): tensor for name, tensor in module.state_dict().items()}
    buffers = {file: (data, entries) for file, data, entries in stored}
    for key, ref in places.items():
        data, entries = buffers[ref.file]
        _fill(targets[key], read_tensor(data, entries[ref.name]), checkpoint.show(ref.file), ref.name)
        disk[component, key] = ref
    return module.requires_grad_(False).eval()


def weight_files(checkpoint: Checkpoint, component: str) -> tuple[str, ...]:
    """The safetensors files of a component, in order. Raises what fits when there are none, or they contradict."""
    files = checkpoint.weights.get(component, ())
    tensors = tuple(file for file in files if file.endswith(".safetensors"))
    index = next((file for file in files if file.endswith(".json")), None)
    if not tensors:
        raise _no_weights(checkpoint, component)
    if index is not None:
        table = checkpoint.json(index).get("weight_map")
        named = {f"{component}/{value}" for value in table.values()} if isinstance(table, dict) else set()
        if named != set(tensors):
            raise DamagedFile(
                f"{checkpoint.show(index)} does not list the weight files that lie beside it.",
                hint="Keep either one weight file or the shards that the index lists, then scan again.",
            )
    return tensors


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


def _match(
    checkpoint: Checkpoint, component: str, wanted: Mapping[str, Tensor], stored: Stored
) -> dict[str, TensorRef]:
    """Parameter -> its place on disk, one to one. Raises DamagedFile where the two do not fit."""
    places: dict[str, TensorRef] = {}
    for file, _, entries in stored:
        for name, entry in entries.items():
            key = canonical(name)
            if is_derived(name):
                continue
            _require_fit(checkpoint.show(file), name, entry, wanted.get(key), key in places)
            places[key] = TensorRef(file, name)
    missing = sorted(wanted.keys() - places.keys())
    if missing:
        raise DamagedFile(
            f"{checkpoint.show(component)} lacks {len(missing):,} of the {len(wanted):,} tensors that its config.json "
            f"asks for, among them {missing[0]}.",
            hint=BELONG,
        )
    return places


def _require_fit(where: str, name: str, entry: Entry, wanted: Tensor | None, again: bool) -> None:
    if wanted is None or again:
        reason = "twice" if again else "which its config.json does not ask for"
        raise DamagedFile(f"{where} holds the tensor {name!a} {reason}.", hint=BELONG)
    if entry.shape != tuple(wanted.shape) or not entry.dtype.is_floating_point:
        raise DamagedFile(
            f"{where} holds {name!a} as {entry.dtype} {list(entry.shape)}; "
            f"its config.json asks for floating-point numbers of shape {list(wanted.shape)}.",
            hint=BELONG,
        )


def _fill(target: Tensor, value: Tensor, where: str, name: str) -> None:
    with torch.no_grad():
        target.copy_(value)
    if not torch.isfinite(target).all():
        raise DamagedFile(
            f"{where}: {name!a} holds values that are not numbers (NaN or infinite).",
            hint="Such a model makes no pictures. " + DOWNLOAD_AGAIN,
        )


def _no_weights(checkpoint: Checkpoint, component: str) -> CheckpointError:
    linked = [link for link in checkpoint.links_out if link == component or link.startswith(component + "/")]
    if linked:
        return checkpoint.absent(linked[0])
    unopened = [s for s in checkpoint.skipped if s.what.startswith(component + "/")]
    if unopened:
        return UnsafeFile(
            f"{checkpoint.show(component)} has no weights that are loaded by default; "
            f"{unopened[0].what}: {unopened[0].reason}.",
            hint="Name it with --variant."
            if "--variant" in unopened[0].reason
            else "Have the checkpoint saved as safetensors: pipeline.save_pretrained(FOLDER, safe_serialization=True).",
        )
    there = any(record.path.startswith(component + "/") for record in checkpoint.records)
    return NotACheckpoint(
        f"{checkpoint.show(component)} {'has no weights' if there else 'is missing'}.",
        hint="Download the checkpoint again, with all components.",
    )


def _empty(checkpoint: Checkpoint, component: str, stored_tensors: int) -> Any:
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


def _fill_buffers(module: Any) -> None:
    """Buffers that no file stores. Raises DamagedFile for one that this loader does not know."""
    stored = module.state_dict().keys()
    for name, buffer in module.named_buffers():
        if name in stored:
            continue
        if not is_derived(name):
            raise DamagedFile(f"The model has an unknown buffer {name}.", hint="Its config.json is not supported.")
        buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
