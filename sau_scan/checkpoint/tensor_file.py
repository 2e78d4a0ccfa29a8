"""Reading safetensors from bytes that may be hostile: a header of our own parsing, tensors copied out of the buffer.

Layout: 8 bytes length of the header (little endian), the header (JSON: name -> dtype, shape, offsets), the data.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sau_scan.errors import DamagedFile, NotACheckpoint, WriteError

HEADER_LIMIT = 100_000_000  # the reference implementation's limit
MOST_DIMENSIONS = 8
CUT_SHORT = "Download it again, or check it against the sha256 that its source publishes."
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# The other types of the format: parts of bytes, mostly, that mean nothing without scales of their maker's own.
UNREAD = frozenset({"C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "U16", "U32", "U64"})


@dataclass(frozen=True)
class Entry:
    """A tensor's type, shape, and bytes ``begin:end`` counted from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class _Repeated(ValueError):
    """A JSON object with the same key twice: two readers could see two different files."""


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Repeated
    return result


def read_entries(data: bytes | bytearray, where: str, size: int | None = None) -> dict[str, Entry]:
    """The tensors of a safetensors file in the order of its header; ``where`` names the file in errors.

    ``data``: the file, or its beginning up to the end of the header if ``size`` says how long it is.
    Raises DamagedFile for anything that the format forbids: a header beyond the file, repeated names, sizes that do
    not fit the shape, bytes that overlap, belong to no tensor or lie behind the end; NotACheckpoint for a type that is
    not read here.
    """
    length = len(data) if size is None else size
    start, header = _header(data, length, where)
    entries = {name: _entry(name, value, start, where) for name, value in header.items() if name != "__metadata__"}
    _check_layout(entries, start, length, where)
    return entries


def read_metadata(data: bytes | bytearray, where: str) -> dict[str, str]:
    """What the header says beside tensors; ``data`` reaches to its end."""
    notes: dict[str, str] = _header(data, len(data), where)[1].get("__metadata__", {})
    return notes


def is_safetensors(head: bytes) -> bool:
    """Whether it begins as safetensors do: the length of a header, then JSON. No text begins with such a length."""
    length = int.from_bytes(head[:8], "little")
    return len(head) > 8 and 2 <= length < 2**48 and head[8:].lstrip(b" \t\r\n")[:1] == b"{"


def read_tensor(data: bytes | bytearray, entry: Entry) -> Tensor:
    """A copy of one tensor, in its type on disk, of shape ``entry.shape``."""
    if entry.begin == entry.end:
        return torch.empty(entry.shape, dtype=entry.dtype)
    # A copy of its own: aligned whatever the header's length, and the file's buffer can be freed.
    own = bytearray(memoryview(data)[entry.begin : entry.end])
    return torch.frombuffer(own, dtype=entry.dtype).reshape(entry.shape)


def is_plain(tensor: Tensor) -> bool:
    """Whether it is numbers in rows: others do not tell a shape, or hold no data."""
    return tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_nested or tensor.is_quantized)


def tensor_bytes(tensor: Tensor) -> bytes:
    """The bytes of a tensor as safetensors stores them (contiguous; the machine must be little-endian)."""
    flat = tensor.detach().cpu().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _damaged(where: str, what: str) -> DamagedFile:
    return DamagedFile(f"{where} {what}. Nothing was loaded from it.", hint=CUT_SHORT)


def _header(data: bytes | bytearray, length: int, where: str) -> tuple[int, dict[str, Any]]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > HEADER_LIMIT:
        raise _damaged(where, "is not a safetensors file: it does not begin with the length of a header")
    if 8 + size > min(length, len(data)):
        raise _damaged(where, f"ends after {length:,} bytes, within its header of {size:,}: it is cut short")
    try:
        text = bytes(data[8 : 8 + size]).decode("utf-8")
        header = json.loads(text, object_pairs_hook=_no_repeats)
    except _Repeated as error:
        raise _damaged(where, "names the same tensor twice in its header") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(where, "is not a safetensors file: its header is not JSON") from error
    notes = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise _damaged(where, "is not a safetensors file: its header is not a table of tensors")
    return 8 + size, header


def _entry(name: str, value: Any, start: int, where: str) -> Entry:
    try:
        if value["dtype"] in UNREAD:
            raise NotACheckpoint(
                f"{where} holds {name!a} as {value['dtype']}, a type that is not read here.",
                hint="Scan a copy of it that its author saved as plain numbers, such as float16.",
            )
        dtype = DTYPES[value["dtype"]]
        shape = tuple(value["shape"])
        begin, end = value["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(where, f"describes the tensor {name!a} in a way that cannot be read") from error
    if len(shape) > MOST_DIMENSIONS:
        raise _damaged(where, f"gives the tensor {name!a} {len(shape):,} dimensions")
    numbers = (*shape, begin, end)
    if not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
        raise _damaged(where, f"gives the tensor {name!a} an impossible size")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise _damaged(where, f"gives the tensor {name!a} a size that does not fit its shape")
    return Entry(dtype, shape, start + begin, start + end)


def _check_layout(entries: dict[str, Entry], start: int, size: int, where: str) -> None:
    position = start
    for entry in sorted(entries.values(), key=lambda e: (e.begin, e.end)):
        if entry.begin != position:
            raise _damaged(where, "has tensors that overlap or leave gaps")
        position = entry.end
    if position > size:
        raise _damaged(where, f"ends after {size:,} of {position:,} bytes: it is cut short")
    if position < size:
        raise _damaged(where, f"has {size - position:,} bytes behind its last tensor")


def as_stored(value: Tensor, dtype: torch.dtype, where: str, name: str) -> Tensor:
    """``value`` in the type on disk. Raises WriteError for a number that this type cannot hold."""
    stored = value.detach().to(device="cpu", dtype=dtype)
    if not torch.isfinite(stored.float()).all():
        raise WriteError(
            f"{where}: the repaired {name!a} holds values that {dtype} cannot represent.",
            hint="Repair a float32 copy of it, or choose another --method.",
        )
    return stored
