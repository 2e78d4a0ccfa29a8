"""The tiers of a scan, from cheap to dear: weights, text, denoise, phrases. Each turns recordings into leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sau_scan.analysers.null_directions import NullDirections, find_null_directions, stacked_projections
from sau_scan.analysers.phrases import PhraseLead, phrase_leads, word_leads
from sau_scan.detectors.calibration import Array, adjusted, tail_p_values
from sau_scan.detectors.unexplained import excess
from sau_scan.findings import Component, Evidence, Slot
from sau_scan.probes.candidates import Candidate, Vocabulary
from sau_scan.probes.carriers import Words, frames, high_noise
from sau_scan.probes.plan import Plan, Rung, second_rung_size
from sau_scan.probes.runner import Prober
from sau_scan.recordings import TextRecording
from sau_scan.rules import Rule

LOST = 0.5  # of what carriers differ by: a collapse erases more than half of it


@dataclass(frozen=True)
class Lead:
    """A candidate that stands out, with the detector that says so; ``shift`` is how far it moves the text output."""

    candidate: Candidate
    detector: str
    component: Component
    score: float
    p_value: float
    shift: float = 0.0
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Scored:
    """One slot's candidates with their text recording and denoise scores (NaN where a rung was not reached)."""

    candidates: tuple[Candidate, ...]
    text: TextRecording
    first: Array = field(default_factory=lambda: np.empty(0))


def weights_tier(prober: Prober) -> NullDirections:
    """Directions that all cross-attention projections ignore."""
    return find_null_directions(stacked_projections(prober.model))


def text_tier(prober: Prober, plan: Plan) -> tuple[dict[Slot, Scored], list[Lead]]:
    """All candidates through the text encoder; leads are those whose outputs collapse, or move beyond their slot."""
    scored, leads = {}, []
    for slot, items in plan.candidates.items():
        if not items:
            continue
        record = prober.text(items, plan.recipe.text_carriers)
        scored[slot] = Scored(items, record)
        leads += _collapses(items, record)
        if slot in (Slot.INSIDE, Slot.REPLACE):
            leads += _shifts(items, record)
    return scored, sorted(leads, key=lambda lead: lead.p_value)


def _collapses(items: Sequence[Candidate], record: TextRecording) -> list[Lead]:
    """AMDET (2512.00343) and T2IShield (2407.04215) saw it in given prompts: different prompts, one output."""
    retained = record.retained.double().cpu().numpy()
    p_values = adjusted(tail_p_values(-np.log(np.maximum(retained, 1e-6))))
    middle, low, high = np.quantile(retained, (0.5, 0.05, 0.95))
    return [
        Lead(
            items[i],
            "collapse",
            Component.TEXT_ENCODER,
            float(1 - retained[i]),
            float(p_values[i]),
            float(record.shift[i]),
            (evidence("difference between prompts left", retained[i], middle, low, high, p_values[i]),),
        )
        for i in np.flatnonzero((p_values < 0.01) & (retained < LOST))
    ]


def _shifts(items: Sequence[Candidate], record: TextRecording) -> list[Lead]:
    """A look-alike or invisible character means nothing, so moving the text far beyond its kind is anomalous."""
    shift = record.shift.double().cpu().numpy()
    p_values = adjusted(tail_p_values(np.log(np.maximum(shift, 1e-9))))
    middle, low, high = np.quantile(shift, (0.5, 0.05, 0.95))
    return [
        Lead(
            items[i],
            "text-shift",
            Component.TEXT_ENCODER,
            float(shift[i] / middle),
            float(p_values[i]),
            float(shift[i]),
            (evidence("shift of the text output", shift[i], middle, low, high, p_values[i]),),
        )
        for i in np.flatnonzero(p_values < 0.01)
    ]


def denoise_tier(prober: Prober, plan: Plan, scored: dict[Slot, Scored], seed: int) -> list[Lead]:
    """All candidates through one or two denoising steps, the best again through more; strongest leads first."""
    leads = []
    for slot, items in scored.items():
        first = _rung(prober, plan.recipe.first, items.candidates)
        shift = items.text.shift.double().cpu().numpy()
        z = excess(first, shift)
        leads += _second_rung(prober, plan, items, z, np.random.default_rng([seed, len(slot)]))
    p_values = _paid_for(leads, sum(len(s.candidates) for s in scored.values()))
    leads = [_with_p(lead, p) for lead, p in zip(leads, p_values, strict=True)]
    return sorted(leads, key=lambda lead: (lead.p_value, -lead.score))


def _rung(prober: Prober, rung: Rung, items: Sequence[Candidate]) -> Array:
    times = [high_noise(prober.model, share) for share in rung.times]
    effect: Array = prober.noise(items, rung.carriers, times).effect.double().cpu().numpy()
    return effect


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
    times = [high_noise(prober.model, share) for share in plan.recipe.second.times]
    record = prober.noise(picked, plan.recipe.second.carriers, times)
    effect = record.effect.double().cpu().numpy()
    shift = items.text.shift.double().cpu().numpy()[chosen]
    is_null = np.arange(len(chosen)) >= len(top)
    score = excess(effect, shift, is_null if is_null.sum() >= 32 else None)
    p_values = tail_p_values(score, score[is_null] if is_null.sum() >= 32 else None)
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
                    evidence("effect on the noise", effect[i], *bounds["effect"]),
                    evidence("beyond what its text explains (z)", score[i], p=p_values[i]),
                    evidence("same for all prompts", float(record.consistency[i]), *bounds["consistency"]),
                    evidence("in 5 % of the area", float(record.focus[i]), *bounds["focus"]),
                ),
            )
        )
    return leads


def _nulls(record: object, is_null: Array) -> dict[str, Array]:
    mask = torch.from_numpy(is_null) if is_null.any() else slice(None)
    return {n: getattr(record, n)[mask].double().cpu().numpy() for n in ("effect", "consistency", "focus")}


def _paid_for(leads: Sequence[Lead], tried: int) -> Array:
    """p-values after Benjamini and Hochberg over everything tried, not only over what reached the second rung."""
    p = np.ones(max(tried, len(leads)))
    p[: len(leads)] = [lead.p_value for lead in leads]
    return adjusted(p)[: len(leads)]


def _with_p(lead: Lead, p_value: float) -> Lead:
    return Lead(
        lead.candidate, lead.detector, lead.component, lead.score, float(p_value), lead.shift, lead.evidence
    )


def evidence(
    name: str,
    value: float,
    median: float | None = None,
    low: float | None = None,
    high: float | None = None,
    p: float | None = None,
) -> Evidence:
    plain = [None if v is None else float(v) for v in (median, low, high, p)]
    return Evidence(
        name=name, value=float(value), null_median=plain[0], null_low=plain[1], null_high=plain[2], p_value=plain[3]
    )
