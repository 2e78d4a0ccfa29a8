"""What a repair is: a plan of new weights, made from a workbench; nothing is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.naming import canonical
from sau_scan.checkpoint.patch import WeightPatch, make_patch
from sau_scan.checkpoint.views import TensorRef
from sau_scan.findings import Component
from sau_scan.options import Progress, Silent
from sau_scan.probes.runner import Counter
from sau_scan.repairs.prompts import PromptSource


@dataclass(frozen=True)
class Effort:
    """How much a repair may do; each optimiser step takes ``batch`` triggered and as many clean samples."""

    pairs: int = 512
    keep: int = 2048
    text_steps: int = 500
    sau_steps: int = 120
    batch: int = 24
    rollouts: int = 32
    rollout_steps: int = 10
    guidance: float = 5.0


@dataclass
class Bench:
    """One trigger on one model.

    ``suspect`` is the model as it came to this repair: teacher of everything that must stay. ``model`` is the same with
    the patches of earlier, insufficient repairs of this trigger, if any. Both are frozen; repairs train copies.
    """

    suspect: DiffusionModel
    model: DiffusionModel
    source: PromptSource
    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    counter: Counter = field(default_factory=Counter)


class Repair(Protocol):
    """``component``: what it changes; ``summary``: one line for the plan."""

    @property
    def id(self) -> str: ...
    @property
    def component(self) -> Component: ...
    @property
    def summary(self) -> str: ...

    def passes(self, effort: Effort) -> int:
        """UNet passes that it takes (a backward pass counts as two)."""

    def plan(self, bench: Bench) -> WeightPatch:
        """New values of the tensors that it changes, against the checkpoint on disk."""


def copied(module: nn.Module) -> Any:
    """A private float32 copy to train, every parameter frozen."""
    return copy.deepcopy(module).float().requires_grad_(False)


def with_patch(model: DiffusionModel, patch: WeightPatch) -> DiffusionModel:
    """``model`` with the patched components exchanged for patched copies; the others are shared."""
    touched = {place[0] for place, ref in model.disk.items() if ref in patch.tensors}
    made = replace(model, **{name: copy.deepcopy(getattr(model, name)) for name in touched})
    made.apply(patch)
    return made


def patch_of(model: DiffusionModel, component: str, parameters: Mapping[str, Tensor]) -> WeightPatch:
    """A patch of ``parameters`` (module's name -> new value) of ``component``.

    Left out are unchanged ones, and those that the input does not hold but its base does.
    """
    old = dict(getattr(model, component).named_parameters())
    changed: dict[TensorRef, Tensor] = {
        model.disk_tensor(component, name): value.detach().float().cpu()
        for name, value in parameters.items()
        if (component, canonical(name)) in model.disk
        and not torch.equal(value.detach().float().cpu(), old[name].detach().float().cpu())
    }
    return make_patch(model.checkpoint, changed)


def relative_change(model: DiffusionModel, patch: WeightPatch) -> float:
    """Norm of the change over the norm of the changed tensors."""
    places = {ref: place for place, ref in model.disk.items()}
    moved = total = 0.0
    for ref, value in patch.tensors.items():
        component, name = places[ref]
        old = model.stored(component, name).detach().float().cpu().reshape(value.shape)
        moved += float((value.float() - old).square().sum())
        total += float(old.square().sum())
    return (moved / total) ** 0.5 if total else 0.0
