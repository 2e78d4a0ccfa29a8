"""The modules of a checkpoint, filled from the vetted bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sau_scan.checkpoint.builders import empty_module, fill_buffers
from sau_scan.checkpoint.naming import canonical, is_derived
from sau_scan.checkpoint.patch import TensorRef
from sau_scan.checkpoint.source import DOWNLOAD_AGAIN, Checkpoint
from sau_scan.checkpoint.tensor_file import Entry, read_entries, read_tensor
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, UnsafeFile

Disk = dict[tuple[str, str], TensorRef]
Stored = list[tuple[str, bytearray, dict[str, Entry]]]
BELONG = "Download the component again; its weights and its config.json must belong together."


def load_component(checkpoint: Checkpoint, component: str, disk: Disk) -> Any:
    """A module in fp32 with its weights, in eval mode, without gradients; ``disk`` learns where each parameter lies.

    Sizes are compared before any memory is taken. Raises CheckpointError.
    """
    stored: Stored = []
    for file in weight_files(checkpoint, component):
        data = checkpoint.read_buffer(file)
        stored.append((file, data, read_entries(data, checkpoint.show(file))))
    module = empty_module(checkpoint, component, sum(len(entries) for _, _, entries in stored))
    places = _match(checkpoint, component, {canonical(k): v for k, v in module.state_dict().items()}, stored)
    # Module.to_empty itself: nothing of the libraries' overrides is wanted here.
    torch.nn.Module.to_empty(module, device="cpu")
    fill_buffers(module)
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
