"""Weight patches: what a repair wants to change, as a value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from sau_scan.checkpoint.tensor_file import Entry, read_entries
from sau_scan.errors import DamagedFile

if TYPE_CHECKING:
    from sau_scan.checkpoint.source import Checkpoint


@dataclass(frozen=True, order=True)
class TensorRef:
    """A tensor on disk: the file's path in the checkpoint (posix), and the name in that file."""

    file: str
    name: str


@dataclass(frozen=True)
class WeightPatch:
    """``tensors``: new values (fp32 or the type on disk, shape as on disk); ``hashes``: sha256 of the old bytes."""

    tensors: dict[TensorRef, Tensor] = field(default_factory=dict)
    hashes: dict[TensorRef, str] = field(default_factory=dict)

    def merge(self, other: WeightPatch) -> WeightPatch:
        """Both patches; where they meet, ``other`` wins. Raises ValueError if they start from different weights."""
        for ref in self.hashes.keys() & other.hashes.keys():
            if self.hashes[ref] != other.hashes[ref]:
                raise ValueError(f"patches of different originals of {ref}")
        return WeightPatch({**self.tensors, **other.tensors}, {**self.hashes, **other.hashes})

    def for_file(self, file: str) -> dict[str, Tensor]:
        """Name on disk -> new value, for one file."""
        return {ref.name: tensor for ref, tensor in self.tensors.items() if ref.file == file}


def make_patch(checkpoint: Checkpoint, tensors: Mapping[TensorRef, Tensor]) -> WeightPatch:
    """A patch of ``tensors`` with the hashes of what is on disk. Each file is read once.

    Raises DamagedFile for a tensor that is not there or has another shape.
    """
    hashes: dict[TensorRef, str] = {}
    for file in sorted({ref.file for ref in tensors}):
        data = checkpoint.read_buffer(file)
        entries = read_entries(data, checkpoint.show(file))
        for ref in (ref for ref in tensors if ref.file == file):
            entry = require_entry(entries, ref, tensors[ref], checkpoint.show(file))
            hashes[ref] = hashlib.sha256(memoryview(data)[entry.begin : entry.end]).hexdigest()
    return WeightPatch({ref: tensor.detach() for ref, tensor in tensors.items()}, hashes)


def require_entry(entries: Mapping[str, Entry], ref: TensorRef, value: Tensor, where: str) -> Entry:
    """The place of ``ref`` in its file, checked against the new value's shape; DamagedFile otherwise."""
    entry = entries.get(ref.name)
    if entry is None or entry.shape != tuple(value.shape):
        raise DamagedFile(
            f"{where} has no tensor {ref.name!a} of shape {tuple(value.shape)}.",
            hint="The repair was planned for another checkpoint: scan this one and repair from its own report.",
        )
    return entry
