"""Files of weights as names, shapes and a stream of tensors, whatever holds them: safetensors, or a vetted pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from sau_scan.checkpoint.downloads import ends_of, spoilt
from sau_scan.checkpoint.files import opened
from sau_scan.checkpoint.naming import PICKLES
from sau_scan.checkpoint.pickled import PickledFile
from sau_scan.checkpoint.quantised import Quantised, quantised_pairs
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.checkpoint.tensor_file import HEADER_LIMIT, Entry, read_entries, read_metadata
from sau_scan.errors import DamagedFile


class WeightFile(Protocol):
    """``entries``: what the file holds, in its order. Raises DamagedFile for a file that is no such file."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors, one at a time. Only when the last was taken is it sure that they are those that were hashed."""


def weight_file(checkpoint: Checkpoint, path: str) -> WeightFile:
    """The reader that fits ``path``: by its name, which the static checks hold against its content.

    There is one for a file of a checkpoint, which knows names and shapes from then on, and keeps no tensor.
    """
    if path not in checkpoint.readers:
        checkpoint.readers[path] = _reader(checkpoint, path)
    found: WeightFile = checkpoint.readers[path]
    return found


def _reader(checkpoint: Checkpoint, path: str) -> WeightFile:
    _require_whole(checkpoint, path)
    if any(path.lower().endswith(ending) for ending in PICKLES):
        return PickledFile(checkpoint, path)
    plain = SafetensorsFile(checkpoint, path)
    return Quantised(plain) if quantised_pairs(plain.entries) else plain


def _require_whole(checkpoint: Checkpoint, path: str) -> None:
    """Raises DamagedFile for what a download left instead of weights."""
    record = checkpoint.record(path)
    if record is None:
        raise checkpoint.absent(path)
    with opened(checkpoint.folder, path) as file:
        found = spoilt(ends_of(file, record.size))
    if found is not None:
        raise DamagedFile(f"{checkpoint.show(path)} {found.what}. Nothing was loaded from it.", hint=found.hint)


@dataclass(frozen=True)
class SafetensorsFile:
    checkpoint: Checkpoint
    path: str

    @cached_property
    def _head(self) -> bytes:
        size = int.from_bytes(self.checkpoint.head(self.path, 8), "little")
        return self.checkpoint.head(self.path, 8 + min(size, HEADER_LIMIT))

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        record = self.checkpoint.record(self.path)
        return read_entries(self._head, self.checkpoint.show(self.path), record.size if record else None)

    @property
    def metadata(self) -> Mapping[str, str]:
        return read_metadata(self._head, self.checkpoint.show(self.path))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        ordered = sorted(self.entries.items(), key=lambda item: (item[1].begin, item[1].end))
        with self.checkpoint.verified(self.path) as file:
            if file.read(len(self._head)) != self._head:
                raise self.checkpoint.changed(self.path)
            for name, entry in ordered:
                tensor = torch.empty(entry.shape, dtype=entry.dtype)
                if tensor.numel() and not file.fill(_memory(tensor)):
                    raise self.checkpoint.changed(self.path)
                yield name, tensor


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a new tensor, to be written to."""
    flat: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
