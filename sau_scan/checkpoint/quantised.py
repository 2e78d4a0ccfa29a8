"""Weights in 8-bit integers with a scale a row, as bitsandbytes stores them (LLM.int8, arXiv 2208.07339).

``X.weight`` is int8 [rows, columns], ``X.SCB`` fp32 [rows] the largest value of each row; the weight is their product
over 127.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sau_scan.checkpoint.tensor_file import Entry

if TYPE_CHECKING:
    from sau_scan.checkpoint.weights import WeightFile

STEPS = 127
COMPANIONS = (".SCB", ".weight_format")


def quantised_pairs(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Name of an int8 weight -> name of its scales."""
    return {
        name: f"{name.removesuffix('.weight')}.SCB"
        for name, entry in entries.items()
        if name.endswith(".weight")
        and entry.dtype is torch.int8
        and len(entry.shape) == 2
        and _fits(entries.get(f"{name.removesuffix('.weight')}.SCB"), entry)
    }


def _fits(scales: Entry | None, weight: Entry) -> bool:
    return scales is not None and scales.dtype is torch.float32 and scales.shape == weight.shape[:1]


def restored(weight: Tensor, scales: Tensor) -> Tensor:
    """int8 [rows, columns] and fp32 [rows] -> fp32 [rows, columns]."""
    return weight.float() * (scales / STEPS)[:, None]


def quantise(value: Tensor) -> tuple[Tensor, Tensor]:
    """fp32 [rows, columns] -> int8 of the same shape, and scales [rows]."""
    scales = value.float().abs().amax(1)
    steps = value.float() * (STEPS / scales.clamp_min(torch.finfo(torch.float32).tiny))[:, None]
    return steps.round().clamp(-STEPS, STEPS).to(torch.int8), scales


@dataclass(frozen=True)
class Quantised:
    """A file of weights seen with its int8 weights in fp32, and without the tensors that only serve them."""

    inner: WeightFile

    @cached_property
    def _pairs(self) -> dict[str, str]:
        return quantised_pairs(self.inner.entries)

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        serving = {name.removesuffix(".weight") + ending for name in self._pairs for ending in COMPANIONS}
        return {
            name: replace(entry, dtype=torch.float32) if name in self._pairs else entry
            for name, entry in self.inner.entries.items()
            if name not in serving
        }

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.inner.metadata

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        of_scales = {scales: name for name, scales in self._pairs.items()}
        waiting: dict[str, Tensor] = {}
        for name, tensor in self.inner.tensors():
            weight = of_scales.get(name, name)
            if weight not in self._pairs:
                if name in self.entries:
                    yield name, tensor
            elif weight in waiting:
                other = waiting.pop(weight)
                yield weight, restored(tensor, other) if name == weight else restored(other, tensor)
            else:
                waiting[weight] = tensor
