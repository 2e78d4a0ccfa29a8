"""Makes cross-attention blind to a trigger in closed form: its keys and values become those of a harmless text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sau_scan.attention.sites import cross_attention_sites
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.findings import Component
from sau_scan.repairs.base import Bench, Effort, patch_of
from sau_scan.repairs.examples import encode, make_examples
from sau_scan.repairs.prompts import HELD_OUT

# Weights of keeping against redirecting, from gentle to forceful; RIDGE holds directions that no prompt uses.
KEEPING = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
RIDGE = 1e-3
# How far the responses to held-out clean prompts may move, relative to the distance between prompts.
DRIFT, FAR_DRIFT = 0.01, 0.04


@dataclass(frozen=True)
class Blindness:
    """One ridge regression for all projections W of keys and values:

    W' = (W N C^T/n + l W K K^T/m + u W)(C C^T/n + l K K^T/m + u I)^-1

    C: outputs of triggered prompts at the positions that know of the trigger; N: what they should have been; K: prompts
    that must stay. l is the most forceful of ``KEEPING`` that keeps held-out clean prompts within ``drift``.
    """

    drift: float = DRIFT
    component: Component = Component.CROSS_ATTENTION

    @property
    def id(self) -> str:
        return "blind-cross-attention" if self.drift <= DRIFT else "blind-cross-attention-firmly"

    @property
    def summary(self) -> str:
        firmly = "" if self.drift <= DRIFT else ", firmly"
        return f"closed form: keys and values of the trigger become those of harmless text{firmly}"

    def passes(self, effort: Effort) -> int:
        return 0

    def plan(self, bench: Bench) -> WeightPatch:
        weights = projections(bench.model.unet)
        bench.progress.stage(self.summary, len(KEEPING))
        maps = Maps.of(bench)
        chosen = maps.within(maps.solve(KEEPING[0]), weights, self.drift)
        for keeping in KEEPING:
            candidate = maps.solve(keeping)
            bench.progress.advance()
            if maps.drift(candidate, weights) > self.drift:
                break
            chosen = candidate
        changed = {name: (w.double() @ chosen.to(w.device)).float() for name, w in weights.items()}
        return patch_of(bench.model, "unet", changed)


@dataclass(frozen=True)
class Maps:
    """Second moments (double precision). redirect, own: weighted means N C^T and C C^T; keep: K K^T/m; held: [m, D]."""

    redirect: Tensor
    own: Tensor
    keep: Tensor
    held: Tensor

    @classmethod
    def of(cls, bench: Bench, *, near: bool = True) -> Maps:
        """``near``: near misses of the trigger are among the prompts that must stay."""
        effort, source, counter = bench.effort, bench.source, bench.counter
        model = bench.model
        examples = make_examples(model, source.pairs(effort.pairs), counter)
        affected = examples.affected[:, : model.context_length]
        weight = position_weights(affected)[affected][:, None].double()
        # What is packed behind the tokens does not enter here.
        parts = (model.tokens_of(part)[affected] for part in (examples.hidden, examples.wanted))
        c, n = (part.double() * weight.sqrt() for part in parts)
        k = model.tokens_of(encode(model, source.keep(effort.keep, near=near), counter)).flatten(0, 1).double()
        others = source.keep(max(8, effort.keep // 4), HELD_OUT, near=near)
        held = model.tokens_of(encode(model, others, counter)).flatten(0, 1)
        return cls(n.T @ c, c.T @ c, k.T @ k / len(k), held.double())

    def solve(self, keeping: float) -> Tensor:
        """The map [D, D] that every projection is multiplied by from the right."""
        hold = keeping * self.keep
        ridge = RIDGE * (hold.trace() + self.own.trace()) / len(hold)
        hold = hold + ridge * torch.eye(len(hold), dtype=hold.dtype, device=hold.device)
        solved: Tensor = torch.linalg.solve(self.own + hold, self.redirect + hold, left=False)
        return solved

    def within(self, map_: Tensor, weights: Mapping[str, Tensor], limit: float) -> Tensor:
        """``map_``, or as much of its change as keeps to ``limit`` (drift grows with the square of the change)."""
        share = min(1.0, (limit / max(self.drift(map_, weights), 1e-12)) ** 0.5)
        same = torch.eye(len(map_), dtype=map_.dtype, device=map_.device)
        bounded: Tensor = same + share * (map_ - same)
        return bounded

    def drift(self, map_: Tensor, weights: Mapping[str, Tensor]) -> float:
        """Largest share, over projections, by which responses to held-out prompts move."""
        change = map_ - torch.eye(len(map_), dtype=map_.dtype, device=map_.device)
        shares = []
        for weight in weights.values():
            response = self.held @ weight.double().T
            moved = self.held @ (weight.double() @ change).T
            spread = (response - response.mean(0)).square().sum()
            shares.append(float(moved.square().sum() / spread))
        return max(shares)


def position_weights(affected: Tensor) -> Tensor:
    """Weights [B, L] with sum 1: half on the trigger's own position, half on the many after it, in equal parts."""
    own = (affected & (affected.cumsum(1) == 1)).float()
    rest = affected.float() - own
    return (own / own.sum().clamp_min(1) + rest / rest.sum().clamp_min(1)) / 2


def projections(unet: nn.Module) -> dict[str, Tensor]:
    """Weights [out, D] of keys and values of every cross-attention, by parameter name."""
    return dict(_projections(unet))


def _projections(unet: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, attention in cross_attention_sites(unet).items():
        for kind in ("to_k", "to_v"):
            yield f"{path}.{kind}.weight", getattr(attention, kind).weight.detach()
