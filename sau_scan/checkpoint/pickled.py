"""Weights in a pickle: read by torch's restricted reader, and only where the opcodes were examined before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sau_scan.checkpoint.files import opened
from sau_scan.checkpoint.source import DOWNLOAD_AGAIN, Checkpoint
from sau_scan.checkpoint.tensor_file import Entry
from sau_scan.errors import DamagedFile, UnsafeFile

# Where trainers put the weights among other things.
NESTS = ("state_dict", "model", "module", "params")
DEEPEST = 4


@dataclass(frozen=True)
class PickledFile:
    checkpoint: Checkpoint
    path: str

    @cached_property
    def content(self) -> Any:
        """What the pickle holds, its tensors mapped from the disk rather than read.

        Raises UnsafeFile for a pickle that was not vetted, or that asks for more than tensors; DamagedFile.
        """
        if not self.checkpoint.vetted:
            raise UnsafeFile(
                f"{self.checkpoint.show(self.path)} is a pickle that was not examined.",
                hint="Scan it with sau-scan detect, or convert it with sau-scan convert.",
            )
        with self.checkpoint.verified(self.path), opened(self.checkpoint.folder, self.path) as file:
            return load_tensors(file.fileno(), self.checkpoint.show(self.path))

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return flatten(self.content)

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        return {name: Entry(t.dtype, tuple(t.shape), 0, t.nbytes) for name, t in self._tensors.items()}

    @property
    def metadata(self) -> Mapping[str, str]:
        return {}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._tensors.items()
        with self.checkpoint.verified(self.path):  # the mapped bytes are still those that were hashed
            pass


def load_tensors(descriptor: int, where: str) -> Any:
    """The content of an open pickle of tensors and plain values, by torch's restricted reader.

    Raises UnsafeFile for anything else, DamagedFile for a file that is cut short.
    """
    # By its number, so that it is the very file that was examined.
    place = f"/dev/fd/{descriptor}"
    try:
        try:
            return torch.load(place, weights_only=True, mmap=True, map_location="cpu")
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
        raise DamagedFile(f"{where} cannot be read as a file of tensors.", hint=DOWNLOAD_AGAIN) from error


def flatten(content: Any) -> dict[str, Tensor]:
    """The tensors in nested dictionaries by name; the dictionary of weights alone, where there is one so called."""
    for _ in range(DEEPEST):
        inner = next((content[nest] for nest in NESTS if isinstance(content, dict) and _is_nest(content, nest)), None)
        if inner is None:
            break
        content = inner
    found: dict[str, Tensor] = {}
    _collect(content, "", found, 0)
    return found


def _is_nest(content: dict[Any, Any], name: str) -> bool:
    inner = content.get(name)
    return isinstance(inner, dict) and any(isinstance(value, Tensor) for value in inner.values())


def _collect(content: Any, prefix: str, found: dict[str, Tensor], depth: int) -> None:
    if isinstance(content, Tensor):
        if content.layout is torch.strided:  # no weights are sparse
            found[prefix] = content.detach()
    elif isinstance(content, dict) and depth <= DEEPEST:
        for key, value in content.items():
            if isinstance(key, str):
                _collect(value, f"{prefix}.{key}" if prefix else key, found, depth + 1)
