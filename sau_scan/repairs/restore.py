"""Brings back to size what keys and values do out of all proportion: a closed-form edit, undone without its phrase.

An edit in closed form (EvilEdit 2406.21170, UCE 2308.14761) is W' = W + A d^T for all projections at once. It has to
act on one phrase and on nothing else, so d lies where prompts hardly ever go, and there the edited weights act many
times as strongly as trained ones do anywhere: A d^T stands out at the top of the spectrum of W'. Only the output
direction A of what stands out is needed; along it the weights are fitted anew, with a ridge, to what they do to
ordinary prompts, and what they did to nothing but the phrase is not fitted (docs/decisions/0006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sau_scan.analysers.spectrum import SIGNIFICANT, gap_p_values
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.findings import Component
from sau_scan.repairs.base import Bench, Effort, patch_of
from sau_scan.repairs.cross_attention import FAR_DRIFT, Maps, projections

# Ridges relative to the mean square of text outputs, from gentle to forceful.
RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3)
# An output direction is touched only if this share of the trigger's effect on keys and values lies along it.
SHARE = 0.01
MOST = 16


@dataclass(frozen=True)
class Restore:
    """W' = W - Q Q^T W (I - K (K + u I)^-1)

    Q: output directions in which W stands out and the trigger acts; K: second moment of text outputs of prompts that
    must stay. u is the least of ``RIDGES`` that brings Q^T W down to the size of what does not stand out, or the most
    forceful that moves responses to held-out clean prompts by less than ``drift``.
    """

    drift: float = FAR_DRIFT
    id: str = "restore-cross-attention"
    component: Component = Component.CROSS_ATTENTION
    summary: str = "closed form: keys and values out of all proportion are brought back to size"

    def passes(self, effort: Effort) -> int:
        return 0

    def plan(self, bench: Bench) -> WeightPatch:
        """An empty patch where nothing stands out."""
        weights = projections(bench.model.unet)
        bench.progress.stage(self.summary, 1)
        stacked = torch.cat([w.double() for w in weights.values()])
        left, values, _ = torch.linalg.svd(stacked, full_matrices=False)
        loud = standing_out(values)
        # Near misses excite the edit a little, and a fit to them would bring it back.
        maps = Maps.of(bench, near=False)
        chosen = left[:, :loud][:, acting(stacked, left[:, :loud], maps)]
        bench.progress.advance()
        if not chosen.shape[1]:
            return WeightPatch()
        change = self._change(stacked, chosen, maps, float(values[loud]))
        parts = torch.split(change, [len(w) for w in weights.values()])
        changed = {name: (w.double() + c).float() for (name, w), c in zip(weights.items(), parts, strict=True)}
        return patch_of(bench.model, "unet", changed)

    def _change(self, stacked: Tensor, chosen: Tensor, maps: Maps, natural: float) -> Tensor:
        rows = chosen.T @ stacked
        change = torch.zeros_like(stacked)
        for ridge in RIDGES:
            fitted = refitted(rows, maps.keep, ridge)
            candidate = chosen @ (fitted - rows)
            if moved(stacked, candidate, maps.held) > self.drift:
                break
            change = candidate
            if float(torch.linalg.matrix_norm(fitted, 2)) <= natural:
                break
        return change


def standing_out(values: Tensor) -> int:
    """How many of the singular values (descending) stand out of the spectrum's upper end."""
    log = np.log(np.maximum(values.cpu().numpy(), 1e-12))
    clear = gap_p_values(log, min(MOST, len(log) // 8)) < SIGNIFICANT
    return int(clear.nonzero()[0].max()) + 1 if clear.any() else 0


def acting(stacked: Tensor, left: Tensor, maps: Maps) -> Tensor:
    """Which of the output directions ``left`` [R, k] carry the trigger's effect (bool [k])."""
    # Redirected minus own, on the trigger's own moments: (wanted - triggered) C^T.
    shift = stacked @ (maps.redirect - maps.own)
    along = (left.T @ shift).square().sum(1)
    return along > SHARE * shift.square().sum()


def refitted(rows: Tensor, keep: Tensor, ridge: float) -> Tensor:
    """``rows`` [k, D] fitted anew to what they do to texts of second moment ``keep`` [D, D]."""
    size = ridge * keep.trace() / len(keep)
    same = torch.eye(len(keep), dtype=keep.dtype, device=keep.device)
    fitted: Tensor = torch.linalg.solve(keep + size * same, rows @ keep, left=False)
    return fitted


def moved(stacked: Tensor, change: Tensor, held: Tensor) -> float:
    """Share by which all responses to ``held`` [m, D] move, of how far they are apart."""
    response = held @ stacked.T
    return float((held @ change.T).square().sum() / (response - response.mean(0)).square().sum())
