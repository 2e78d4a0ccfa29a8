"""A LoRA at any strength, in place: only the weights that it changes are held twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sau_scan.checkpoint.components import load_component
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.naming import canonical


@dataclass(frozen=True)
class Adapted:
    """``weights``: (component, parameter) -> what it is in memory, with the LoRA, and without it."""

    weights: dict[tuple[str, str], tuple[Tensor, Tensor, Tensor]]

    @classmethod
    def of(cls, model: DiffusionModel) -> Self:
        """Of a model that was loaded from a LoRA and its base; its own weights are what :meth:`at` changes."""
        base = model.checkpoint.base
        assert base is not None
        found = {}
        for component in dict.fromkeys(component for component, _ in model.disk):
            module = load_component(base, component, {})
            plain = {canonical(name): tensor for name, tensor in module.state_dict().items()}
            for place in (place for place in model.disk if place[0] == component):
                live = model.stored(*place)
                found[place] = (live, live.clone(), plain[place[1]].to(live))
        return cls(found)

    @property
    def encoders(self) -> bool:
        """Whether any text encoder is changed."""
        return any(component.startswith("text_encoder") for component, _ in self.weights)

    @contextmanager
    def at(self, strength: float) -> Iterator[None]:
        """The model with this share of the change, for as long as the block lasts."""
        try:
            self._set(strength)
            yield
        finally:
            self._set(1.0)

    @torch.no_grad()
    def _set(self, strength: float) -> None:
        for live, full, plain in self.weights.values():
            live.copy_(full if strength == 1.0 else torch.lerp(plain, full, strength))
