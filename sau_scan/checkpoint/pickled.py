"""Weights in a pickle: read by torch's restricted reader, and only where the opcodes were examined before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from sau_scan.checkpoint.source import DOWNLOAD_AGAIN, Checkpoint
from sau_scan.checkpoint.tensor_file import Entry
from sau_scan.errors import DamagedFile, NotACheckpoint, UnsafeFile
from sau_scan.findings import escape

# Where trainers put the weights among other things.
NESTS = ("state_dict", "model", "module", "params")
DEEPEST = 4
# Tied weights take more than the pickle has; a tensor that repeats one number would take any size.
MOST_GROWTH, SLACK = 4, 2**24
MOST_IN_MEMORY = 2**30


@dataclass(frozen=True)
class PickledFile:
    checkpoint: Checkpoint
    path: str

    @property
    def content(self) -> Any:
        """What a small pickle holds, in memory of its own: the bytes that are loaded are those that were compared.

        Raises UnsafeFile for a pickle that was not vetted, or that asks for more than tensors; DamagedFile.
        """
        self._require_vetted()
        record = self.checkpoint.record(self.path)
        if record is not None and record.size > MOST_IN_MEMORY:
            raise DamagedFile(f"{self.checkpoint.show(self.path)} is larger than any embedding.", hint=DOWNLOAD_AGAIN)
        return load_tensors(BytesIO(self.checkpoint.read_buffer(self.path)), self.checkpoint.show(self.path))

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        # Whoever takes tensors by these names compares the names, and then all bytes, once more.
        with self._mapped(again=False) as found:
            return _entries(found)

    @property
    def metadata(self) -> Mapping[str, str]:
        return {}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        with self._mapped() as found:
            if _entries(found) != self.entries:
                raise self.checkpoint.changed(self.path)
            for name, tensor in found.items():
                # Its own memory: what is mapped changes with the file, after it was compared as well.
                yield name, tensor.clone()

    @contextmanager
    def _mapped(self, *, again: bool = True) -> Iterator[dict[str, Tensor]]:
        """The tensors, mapped from the disk for as long as the block lasts; raises as :attr:`content`."""
        self._require_vetted()
        where, record = self.checkpoint.show(self.path), self.checkpoint.record(self.path)
        with self.checkpoint.held(self.path, again=again) as file:
            found, _ = weights(load_tensors(file.fileno(), where), where)
            require_size(found, record.size if record else 0, where)
            yield found

    def _require_vetted(self) -> None:
        if not self.checkpoint.vetted:
            raise UnsafeFile(
                f"{self.checkpoint.show(self.path)} is a pickle that was not examined.",
                hint="Scan it with sau-scan detect, or convert it with sau-scan convert.",
            )


def _entries(found: Mapping[str, Tensor]) -> dict[str, Entry]:
    return {name: Entry(t.dtype, tuple(t.shape), 0, t.nbytes) for name, t in found.items()}


def load_tensors(source: int | BytesIO, where: str) -> Any:
    """The content of a pickle of tensors and plain values, by torch's restricted reader: mapped from an open file,
    given by its descriptor, or read from memory.

    Raises UnsafeFile for anything else, DamagedFile for a file that is cut short.
    """
    # By its number, so that it is the very file that was examined.
    place = f"/dev/fd/{source}" if isinstance(source, int) else source
    try:
        try:
            return torch.load(place, weights_only=True, mmap=isinstance(source, int), map_location="cpu")
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # Files of before torch 1.6 cannot be mapped.
            return torch.load(place, weights_only=True, map_location="cpu")
    except Exception as error:  # the reader raises anything on hostile content
        if "WeightsUnpickler" in str(error) or "weights_only" in str(error).lower():
            raise UnsafeFile(
                f"{where} holds more than tensors and plain values, and is not opened.",
                hint="Get the weights as safetensors from their source.",
            ) from error
        raise DamagedFile(
            f"{where} cannot be read as a file of tensors: it is damaged, or cut short.", hint=DOWNLOAD_AGAIN
        ) from error


def weights(content: Any, where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors in nested dictionaries by name, and in words what else there is; of a dictionary of weights, where
    there is one so called, those alone.

    Raises UnsafeFile where two readers could see different tensors, NotACheckpoint where there are none.
    """
    dropped: list[str] = []
    for _ in range(DEEPEST):
        nests = [nest for nest in NESTS if isinstance(content, dict) and _holds_tensors(content.get(nest))]
        if len(nests) > 1:
            raise _ambiguous(where, f"weights under {nests[0]!a} and under {nests[1]!a}")
        if not nests:
            break
        dropped += [_words(str(key), value) for key, value in content.items() if key != nests[0]]
        content = content[nests[0]]
    found: dict[str, Tensor] = {}
    for name, value in _leaves(content, "", 0):
        if not isinstance(value, Tensor):
            dropped.append(_words(name, value))
        elif name in found:
            raise _ambiguous(where, f"two tensors called {name!a}")
        elif value.layout is not torch.strided or value.is_meta:
            raise not_plain(where, name, value)
        else:
            found[name] = value.detach()
    if not found or "" in found:
        raise NotACheckpoint(f"{where} holds no tensors with names.", hint="Give a file of weights.")
    return found, tuple(dropped)


def _leaves(content: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if not isinstance(content, dict) or depth > DEEPEST:
        yield prefix, content
        return
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(key, str):
            yield from _leaves(value, name, depth + 1)
        else:
            yield name, None if isinstance(value, Tensor) else value


def _holds_tensors(inner: Any) -> bool:
    return isinstance(inner, dict) and any(isinstance(value, Tensor) for value in inner.values())


def _words(name: str, value: Any) -> str:
    return f"{escape(name)[:80] or 'the whole'} ({type(value).__name__})"


def _ambiguous(where: str, what: str) -> UnsafeFile:
    return UnsafeFile(
        f"{where} holds {what}: which is meant depends on who reads it.",
        hint="Ask its author for the weights as safetensors.",
    )


def require_size(found: Mapping[str, Tensor], size: int, where: str) -> None:
    """Raises UnsafeFile for tensors that would take far more memory than the file of ``size`` bytes holds."""
    needed = sum(tensor.nbytes for tensor in found.values())
    if needed > MOST_GROWTH * size + SLACK:
        raise UnsafeFile(
            f"{where} has {size:,} bytes, and its tensors would take {needed:,}: they repeat the same memory.",
            hint="No program saves weights so. Get them as safetensors from their source.",
        )


def not_plain(where: str, name: str, tensor: Tensor) -> NotACheckpoint:
    return NotACheckpoint(
        f"{where} holds {name!a} as {tensor.layout} {tensor.dtype}, which is not stored as safetensors here.",
        hint="Give a file of plain weights.",
    )
