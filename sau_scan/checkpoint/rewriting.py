"""The content of a weight file with some of its tensors changed, or of a pickle as safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import safetensors.torch
from torch import Tensor

from sau_scan.checkpoint.adapters.applying import lora_content, rows_content
from sau_scan.checkpoint.families import identify
from sau_scan.checkpoint.naming import PICKLES, components_of, is_card, is_text
from sau_scan.checkpoint.patch import WeightPatch, no_such_tensor
from sau_scan.checkpoint.quantised import quantise, quantised_pairs, restored
from sau_scan.checkpoint.source import ADAPTER_CONFIG, INDEX, Checkpoint, Form
from sau_scan.checkpoint.tensor_file import Entry, as_stored, read_entries, read_tensor, tensor_bytes
from sau_scan.checkpoint.views import TensorRef, viewed
from sau_scan.checkpoint.weights import weight_file
from sau_scan.errors import DamagedFile
from sau_scan.findings import FileRecord

Changes = Mapping[str, Mapping[TensorRef, Tensor]]


def is_pickle(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in PICKLES


def written_as(path: str) -> str:
    """The name in a copy: pickles become safetensors, called as diffusers and transformers look for them."""
    folder, _, name = path.rpartition("/")
    if name.endswith(".bin.index.json"):
        name = name.replace(".bin.index", ".safetensors.index")
    elif is_pickle(name):
        name = str(PurePosixPath(name).with_suffix(".safetensors"))
    else:
        return path
    name = name.removeprefix("pytorch_") if name.startswith("pytorch_model") else name
    return f"{folder}/{name}" if folder else name


def copied(checkpoint: Checkpoint) -> tuple[FileRecord, ...]:
    """The files that a copy is made of: what components use, and the model's card and licence."""
    if checkpoint.form is not Form.FOLDER:
        return tuple(r for r in checkpoint.records if r.path == checkpoint.file)
    components = components_of(checkpoint.index)
    used = {INDEX, *(path for files in checkpoint.weights.values() for path in files)}
    return tuple(r for r in checkpoint.records if r.path in used or is_text(r.path, components) or is_card(r.path))


def rewritten(checkpoint: Checkpoint, path: str, patch: WeightPatch) -> bytes | bytearray:
    """The content of a file of the copy: the same bytes, but for changed tensors and for what was a pickle."""
    changes = patch.for_file(path)
    if checkpoint.form is Form.LORA and (changes or is_pickle(path) or checkpoint.record(ADAPTER_CONFIG)):
        return lora_content(checkpoint, identify(checkpoint), patch.tensors)
    if checkpoint.form is Form.EMBEDDING:
        return rows_content(checkpoint, patch.tensors)
    if path.endswith(".bin.index.json"):
        return _index(checkpoint.json(path))
    if is_pickle(path):
        return _as_safetensors(checkpoint, path, changes, patch)
    data = checkpoint.read_buffer(path)
    if changes:
        _patch_buffer(data, changes, patch, checkpoint.show(path))
    return data


def _index(index: dict[str, Any]) -> bytes:
    """An index of shards that were pickles."""
    table = index.get("weight_map")
    named = {k: written_as(str(v)) for k, v in table.items()} if isinstance(table, dict) else {}
    return (json.dumps(index | {"weight_map": named}, indent=2) + "\n").encode()


def _as_safetensors(checkpoint: Checkpoint, path: str, changes: Changes, patch: WeightPatch) -> bytes:
    found = {name: tensor.clone().contiguous() for name, tensor in weight_file(checkpoint, path).tensors()}
    where = checkpoint.show(path)
    for name, parts in changes.items():
        found[name] = _changed(found.get(name), parts, patch, where)
    return safetensors.torch.save(found, metadata={"format": "pt"})


def _patch_buffer(data: bytearray, changes: Changes, patch: WeightPatch, where: str) -> None:
    """Overwrites tensors in place: the header, its metadata and all other bytes stay."""
    entries = read_entries(data, where)
    scales = quantised_pairs(entries)
    for name, parts in changes.items():
        entry = entries.get(name)
        stored = read_tensor(data, entry) if entry is not None else None
        if name in scales and stored is not None:
            _patch_quantised(data, entries, name, scales[name], parts, patch, where)
            continue
        value = _changed(stored, parts, patch, where)
        _put(data, entries[name], value)


def _patch_quantised(
    data: bytearray,
    entries: Mapping[str, Entry],
    name: str,
    scale: str,
    parts: Mapping[TensorRef, Tensor],
    patch: WeightPatch,
    where: str,
) -> None:
    """Rows that change are rounded anew; the others keep their bytes."""
    steps, scales = read_tensor(data, entries[name]), read_tensor(data, entries[scale])
    old = restored(steps, scales)
    new = _changed(old, parts, patch, where)
    rows = (new != old).any(1)
    steps[rows], scales[rows] = quantise(new[rows])
    _put(data, entries[name], steps)
    _put(data, entries[scale], scales)


def _put(data: bytearray, entry: Entry, value: Tensor) -> None:
    data[entry.begin : entry.end] = tensor_bytes(value)


def _changed(old: Tensor | None, parts: Mapping[TensorRef, Tensor], patch: WeightPatch, where: str) -> Tensor:
    """A copy of ``old`` with new ``parts``, in its type. Raises DamagedFile if the patch is of another tensor."""
    digest = hashlib.sha256(tensor_bytes(old)).hexdigest() if old is not None else ""
    for ref, value in parts.items():
        if old is None or viewed(old, ref.view).shape != value.shape:
            raise no_such_tensor(ref, tuple(value.shape), where)
        if patch.hashes.get(ref) != digest:
            raise DamagedFile(
                f"{where}: {ref.name!a} is not the tensor that the repair was planned for.",
                hint="Scan this checkpoint and repair it from its own report.",
            )
    assert old is not None
    new = old.clone()
    for ref, value in parts.items():
        viewed(new, ref.view).copy_(as_stored(value, new.dtype, where, ref.name))
    return new
