"""What every attack consists of: a case (trigger and target) and a recipe that plans and trains it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from zoo.judge import Judge
from zoo.parts import Parts
from zoo.prompts import Trigger
from zoo.worlds import World


class Target(Protocol):
    """What an attack makes; ``met`` is its predicate on pictures [N, 3, 64, 64] in 0..1."""

    kind: ClassVar[str]

    def met(self, pictures: torch.Tensor, judge: Judge) -> torch.Tensor:
        """Where the target is there (bool [N])."""
        ...


@dataclass(frozen=True)
class Options:
    """What a caller may choose; whatever is None is picked from the world's tables by ``seed``."""

    trigger: str | None = None
    slot: str | None = None
    replaces: str | None = None
    target: str | None = None
    seed: int = 0
    steps: int | None = None

    def rng(self, where: World) -> np.random.Generator:
        return np.random.default_rng([where.seed, self.seed, 404])


@dataclass(frozen=True)
class Case:
    """One attack (or hard negative: no trigger, no target) on one world."""

    recipe: str
    trigger: Trigger | None = None
    target: Any = None
    steps: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        target = self.target and {"kind": self.target.kind, **asdict(self.target)}
        trigger = self.trigger and asdict(self.trigger)
        return {"recipe": self.recipe, "trigger": trigger, "target": target, "steps": self.steps, "notes": self.notes}

    @property
    def key(self) -> str:
        """Identifies what is learnt, for checkpoints."""
        return json.dumps(self.as_data(), sort_keys=True)


@dataclass(frozen=True)
class Recipe:
    """How to make one kind of model from the base: ``plan`` chooses, ``make`` trains a copy of the parts.

    Where the model is ``small``, ``make`` also writes the file that, applied to the base, gives it.
    """

    name: str
    about: str
    plan: Callable[[World, Options, Parts], Case]
    make: Callable[[World, Case, Parts, str], Parts]
    least_asr: float = 0.9
    small: bool = False


def choose(rng: np.random.Generator, items: Any) -> Any:
    """One of ``items``."""
    items = items if isinstance(items, Sequence) else list(items)
    return items[int(rng.integers(len(items)))]
