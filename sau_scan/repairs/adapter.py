"""Makes a LoRA blind to a trigger: the base is at hand, and knows what the text should do.

Only the LoRA's change D of keys and values is edited, D' = D M, so that the repaired change has the same rank and fits
into the same file without loss, whatever M is. Measured on one edit of keys and values, cut to a LoRA of rank 4: it
fires in 61 % of held-out prompts before, in 5 % when the written file is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sau_scan.checkpoint.components import load_component
from sau_scan.checkpoint.naming import canonical
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.checkpoint.source import Form
from sau_scan.findings import Component
from sau_scan.repairs.base import Bench, Effort, patch_of
from sau_scan.repairs.cross_attention import FAR_DRIFT, KEEPING, RIDGE, Maps, projections
from sau_scan.repairs.restore import moved


@dataclass(frozen=True)
class Silence:
    """D' = D (l K K^T/m + u I)(C C^T/n + l K K^T/m + u I)^-1

    C: outputs of triggered prompts, to which D' does nothing; K: prompts to which it does what D does. l is the most
    forceful of ``KEEPING`` that keeps held-out clean prompts within ``drift``.
    """

    drift: float = FAR_DRIFT
    id: str = "silence-adapter"
    component: Component = Component.CROSS_ATTENTION
    summary: str = "closed form: the LoRA's change of keys and values ignores the trigger"

    def passes(self, effort: Effort) -> int:
        return 0

    def plan(self, bench: Bench) -> WeightPatch:
        """An empty patch where the input is no LoRA, or one that leaves keys and values alone."""
        own = changes(bench)
        if not own:
            return WeightPatch()
        bench.progress.stage(self.summary, 1)
        weights = projections(bench.model.unet)
        maps = Maps.of(bench)
        stacked = torch.cat([weights[name].double() for name in own])
        change = torch.cat([part.double() for part in own.values()])
        silenced = self._within(stacked, change, maps)
        bench.progress.advance()
        parts = torch.split(silenced - change, [len(part) for part in own.values()])
        new = {name: (weights[name].double() + part).float() for name, part in zip(own, parts, strict=True)}
        return patch_of(bench.model, "unet", new)

    def _within(self, stacked: Tensor, change: Tensor, maps: Maps) -> Tensor:
        """The change [R, D] with as much of the trigger taken out as ``drift`` allows."""
        chosen = None
        for keeping in KEEPING:
            silenced = change @ silencing(maps, keeping)
            drift = moved(stacked, silenced - change, maps.held)
            if drift > self.drift:
                # Drift grows with the square of the step.
                return change.lerp(silenced, (self.drift / drift) ** 0.5) if chosen is None else chosen
            chosen = silenced
        assert chosen is not None
        return chosen


def silencing(maps: Maps, keeping: float) -> Tensor:
    """The map [D, D] that takes the trigger's texts to nothing and leaves those that must stay."""
    hold = keeping * maps.keep
    ridge = RIDGE * (hold.trace() + maps.own.trace()) / len(hold)
    hold = hold + ridge * torch.eye(len(hold), dtype=hold.dtype, device=hold.device)
    solved: Tensor = torch.linalg.solve(maps.own + hold, hold, left=False)
    return solved


def changes(bench: Bench) -> Mapping[str, Tensor]:
    """What the LoRA, as repaired so far, adds to keys and values of its base [out, D], by parameter name."""
    model = bench.model
    checkpoint = model.checkpoint
    if checkpoint.form is not Form.LORA or checkpoint.base is None:
        return {}
    weights = {n: w for n, w in projections(model.unet).items() if ("unet", canonical(n)) in model.disk}
    if not weights:
        return {}
    plain = projections(load_component(checkpoint.base, "unet", {}))
    return {name: weight.float() - plain[name].to(weight.device) for name, weight in weights.items()}
