"""Repaired adapters as bytes of the same file: names, shapes, types, order and metadata stay."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sau_scan.checkpoint.tensor_file import as_stored, read_entries, tensor_bytes
from sau_scan.errors import DamagedFile


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
