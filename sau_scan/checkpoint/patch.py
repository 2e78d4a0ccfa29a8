"""Weight patches: what a repair wants to change, as a value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.checkpoint.tensor_file import tensor_bytes
from sau_scan.checkpoint.views import TensorRef, viewed
from sau_scan.checkpoint.weights import weight_file
from sau_scan.errors import DamagedFile


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

    def for_file(self, file: str) -> dict[str, dict[TensorRef, Tensor]]:
        """Name on disk -> new values of it or of its parts, for one file."""
        found: dict[str, dict[TensorRef, Tensor]] = {}
        for ref, tensor in self.tensors.items():
            if ref.file == file:
                found.setdefault(ref.name, {})[ref] = tensor
        return found


def make_patch(checkpoint: Checkpoint, tensors: Mapping[TensorRef, Tensor]) -> WeightPatch:
    """A patch of ``tensors`` with the hashes of what is on disk. Each file is read once.

    Raises DamagedFile for a tensor that is not there or has another shape.
    """
    record = checkpoint.record(checkpoint.file) if checkpoint.form is Form.LORA else None
    if record is not None:  # its parameters are products, and nowhere on disk as such
        return WeightPatch({r: t.detach() for r, t in tensors.items()}, dict.fromkeys(tensors, record.sha256))
    hashes: dict[TensorRef, str] = {}
    for file in sorted({ref.file for ref in tensors}):
        wanted = [ref for ref in tensors if ref.file == file]
        found = old_tensors(checkpoint, file, {ref.name for ref in wanted})
        for ref in wanted:
            part = found.get(ref.name)
            if part is None or viewed(part, ref.view).shape != tensors[ref].shape:
                raise no_such_tensor(ref, tuple(tensors[ref].shape), checkpoint.show(file))
            hashes[ref] = hashlib.sha256(tensor_bytes(part)).hexdigest()
    return WeightPatch({ref: tensor.detach() for ref, tensor in tensors.items()}, hashes)


def old_tensors(checkpoint: Checkpoint, file: str, names: set[str]) -> dict[str, Tensor]:
    """Those tensors of a file that are called so, as they are now."""
    return {name: tensor for name, tensor in weight_file(checkpoint, file).tensors() if name in names}


def no_such_tensor(ref: TensorRef, shape: tuple[int, ...], where: str) -> DamagedFile:
    return DamagedFile(
        f"{where} has no tensor {ref.name!a} of shape {shape}.",
        hint="The repair was planned for another checkpoint: scan this one and repair from its own report.",
    )
