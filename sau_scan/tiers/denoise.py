"""The denoise tier: every candidate through one denoising step, the best again through more, in fixed rungs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from sau_scan.detectors.calibration import Array, adjusted, tail_p_values
from sau_scan.detectors.unexplained import BoolArray, excess
from sau_scan.findings import Component, Slot
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.carriers import high_noise
from sau_scan.probes.plan import Rung, second_rung_size
from sau_scan.probes.planning import Plan
from sau_scan.probes.runner import Prober
from sau_scan.recordings import NoiseRecording
from sau_scan.tiers.leads import Lead, Scored, evidence


def denoise_tier(prober: Prober, plan: Plan, scored: dict[Slot, Scored], seed: int) -> list[Lead]:
    """Candidates through one or two denoising steps, the best again through more; strongest leads first."""
    leads = []
    for slot, items in scored.items():
        shift = items.text.shift.double().cpu().numpy()
        z = _unexplained(_rung(prober, plan.recipe.first, items.candidates), shift)
        leads += _second_rung(prober, plan, items, z, np.random.default_rng([seed, len(slot)]))
    tried = sum(len(s.candidates) for s in scored.values())
    # What the largest of so many standard normal scores is like.
    line = math.sqrt(2 * math.log(max(tried, 2)))
    p_values = _paid_for(leads, tried)
    leads = [replace(lead, p_value=float(p), line=line) for lead, p in zip(leads, p_values, strict=True)]
    return sorted(leads, key=lambda lead: -lead.score)


def _rung(prober: Prober, rung: Rung, items: Sequence[Candidate]) -> NoiseRecording:
    times = [high_noise(prober.model, share) for share in rung.times]
    return prober.noise(items, rung.carriers, times)


def _unexplained(record: NoiseRecording, shift: Array, null: BoolArray | None = None) -> Array:
    """Excess [N] of the effect as a whole or where it is strongest, whichever says more: a patch drowns in the one."""
    return np.maximum(*(excess(e.double().cpu().numpy(), shift, null) for e in (record.effect, record.peak)))


def _second_rung(prober: Prober, plan: Plan, items: Scored, z: Array, rng: np.random.Generator) -> list[Lead]:
    count = len(items.candidates)
    size = second_rung_size(plan.recipe, count)
    top = np.argsort(-z)[: max(1, size - min(plan.recipe.null, count // 2))]
    rest = np.setdiff1d(np.arange(count), top)
    # The null is drawn from everything but the top, which a trigger is among; what it lacks of the tail is
    # extrapolated, and ordinary strong words are answered by the generate tier.
    null = rng.choice(rest, min(size - len(top), len(rest)), replace=False)
    chosen = np.concatenate([top, null])
    picked = [items.candidates[i] for i in chosen]
    record = _rung(prober, plan.recipe.second, picked)
    peak = record.peak.double().cpu().numpy()
    shift = items.text.shift.double().cpu().numpy()[chosen]
    is_null = np.arange(len(chosen)) >= len(top)
    again = _unexplained(record, shift, is_null if is_null.sum() >= 32 else None)
    # The first says where it stands among all, the second in more prompts; what is only one of the two is chance. The
    # p-value is the second's alone: by the first they were chosen.
    score = (z[chosen] + again) / 2
    p_values = tail_p_values(again, again[is_null] if is_null.sum() >= 32 else None)
    leads = []
    for i in range(len(top)):
        bounds = {n: np.quantile(v, (0.5, 0.05, 0.95)) for n, v in _nulls(record, is_null).items()}
        leads.append(
            Lead(
                picked[i],
                "unexplained-effect",
                Component.UNET,
                float(score[i]),
                float(p_values[i]),
                float(shift[i]),
                (
                    evidence("effect on the noise, where it is strongest", peak[i], *bounds["peak"]),
                    evidence("beyond what its text explains (z)", score[i], p=p_values[i]),
                    evidence("same for all prompts", float(record.consistency[i]), *bounds["consistency"]),
                    evidence("in 5 % of the area", float(record.focus[i]), *bounds["focus"]),
                ),
            )
        )
    return leads


def _nulls(record: NoiseRecording, is_null: BoolArray) -> dict[str, Array]:
    mask = torch.from_numpy(is_null if is_null.any() else ~is_null)
    return {n: getattr(record, n)[mask].double().cpu().numpy() for n in ("peak", "consistency", "focus")}


def _paid_for(leads: Sequence[Lead], tried: int) -> Array:
    """p-values after Benjamini and Hochberg over everything tried, not only over what reached the second rung."""
    p = np.ones(max(tried, len(leads)))
    p[: len(leads)] = [lead.p_value for lead in leads]
    return adjusted(p)[: len(leads)]
