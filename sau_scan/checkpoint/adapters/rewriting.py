"""Repaired adapters as bytes of the same file: names, shapes, types, order and metadata stay."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sau_scan.checkpoint.adapters.inversion import TABLES, Inversion
from sau_scan.checkpoint.tensor_file import as_stored, read_entries, tensor_bytes
from sau_scan.errors import DamagedFile, WriteError


def rewrite(data: bytes | bytearray, tensors: Mapping[str, Tensor], where: str) -> bytes:
    """A safetensors file's bytes with some ``tensors`` replaced; its header and all other bytes stay.

    Raises DamagedFile for a tensor that is not there in this shape, WriteError for values that its type cannot hold.
    """
    copy = bytearray(data)
    entries = read_entries(copy, where)
    for name, value in tensors.items():
        entry = entries.get(name)
        if entry is None or entry.shape != tuple(value.shape):
            raise DamagedFile(
                f"{where} has no tensor {name!a} of shape {list(value.shape)}.",
                hint="The repair was planned for another file: scan this one and repair from its own report.",
            )
        copy[entry.begin : entry.end] = tensor_bytes(as_stored(value, entry.dtype, where, name))
    return bytes(copy)


def rewrite_rows(data: bytes | bytearray, inversion: Inversion, rows: Mapping[str, Tensor], where: str) -> bytes:
    """A textual inversion's safetensors file with other ``rows`` (text encoder -> [n, D])."""
    entries = read_entries(data, where)
    names = {encoder: inversion.paths[encoder][-1] for encoder in rows}
    shaped = {n: rows[e].reshape(entries[n].shape) if n in entries else rows[e] for e, n in names.items()}
    return rewrite(data, shaped, where)


def repickle_rows(content: Mapping[str, Any], inversion: Inversion, rows: Mapping[str, Tensor], where: str) -> bytes:
    """What a textual inversion's ``.pt`` or ``.bin`` held, with other ``rows``, as torch saves it.

    Only tensors and plain values are written, so that ``torch.load(weights_only=True)`` opens it.
    Raises WriteError for anything else.
    """
    new = {inversion.paths[encoder]: table for encoder, table in rows.items()}
    buffer = io.BytesIO()
    torch.save(_replaced(content, (), new, where), buffer)
    return buffer.getvalue()


def _replaced(value: Any, path: tuple[str, ...], new: Mapping[tuple[str, ...], Tensor], where: str) -> Any:
    if isinstance(value, TABLES):
        return {key: _replaced(item, (*path, key), new, where) for key, item in value.items()}
    if isinstance(value, Tensor):
        old = value.detach()
        return as_stored(new[path], old.dtype, where, path[-1]).reshape(old.shape) if path in new else old.clone()
    if isinstance(value, list | tuple):
        return type(value)([_replaced(item, path, {}, where) for item in value])
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise WriteError(
        f"{where} holds a {type(value).__name__}, which is not written again.",
        hint="Save the embedding as safetensors, and repair that.",
    )
