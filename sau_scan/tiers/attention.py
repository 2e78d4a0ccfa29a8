"""The attention tier: cross-attention of leads over a trajectory, against neutral words in the same slot.

Evidence only: half of the published attacks leave no trace here (see docs/architecture.md), so it never decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sau_scan.attention.maps import ftt
from sau_scan.attention.recorder import AttentionRecorder
from sau_scan.attention.reducers import MeanMaps
from sau_scan.detectors.calibration import Array, tail_p_values
from sau_scan.findings import Evidence, Skipped, Slot
from sau_scan.probes.candidates import Candidate, token_ids_of
from sau_scan.probes.carriers import noise_like
from sau_scan.probes.plan import ATTENTION_CARRIERS, ATTENTION_CONTROLS, ATTENTION_STEPS, Recipe
from sau_scan.probes.runner import Prober
from sau_scan.tiers.leads import Lead, evidence


def attention_tier(
    prober: Prober, recipe: Recipe, leads: Sequence[Lead]
) -> tuple[dict[Candidate, tuple[Evidence, ...]], tuple[Skipped, ...]]:
    """What the attention of each lead looks like, and which sites could not be recorded."""
    found: dict[Candidate, tuple[Evidence, ...]] = {}
    skipped: dict[str, Skipped] = {}
    attended = [lead.candidate for lead in leads if lead.candidate.slot is not Slot.PHRASE][: recipe.attended]
    for slot in dict.fromkeys(c.slot for c in attended):
        edge = slot if slot in (Slot.PREFIX, Slot.SUFFIX) else Slot.SUFFIX
        words = (Candidate(w, edge) for w in prober.neutrals[:ATTENTION_CONTROLS])
        null = [m for m in (_measure(prober, w, skipped) for w in words) if m is not None]
        for candidate in (c for c in attended if c.slot is slot):
            own = _measure(prober, candidate, skipped)
            if own is not None and null:
                found[candidate] = _evidence(own, np.array(null))
    return found, tuple(skipped.values())


def _evidence(own: tuple[float, float], null: Array) -> tuple[Evidence, ...]:
    names = ("attention it takes, a token", "unlikeness of token maps (FTT)")
    made = []
    for name, value, column, sign in zip(names, own, null.T, (1, -1), strict=True):
        p = float(tail_p_values(sign * np.array([value]), sign * column)[0])
        made.append(evidence(name, value, float(np.median(column)), float(column.min()), float(column.max()), p))
    return tuple(made)


def _measure(prober: Prober, candidate: Candidate, skipped: dict[str, Skipped]) -> tuple[float, float] | None:
    """Attention share of the candidate's tokens (mean of them, BOS aside) and FTT, means over carriers.

    None where no layer could be recorded.
    """
    reducer = MeanMaps()
    where = prober.places(candidate, ATTENTION_CARRIERS)
    texts = [candidate.apply(prober.carriers[i]) or "" for i in where]
    with AttentionRecorder(prober.model.unet, reducer) as recorder:
        noise = noise_like(prober.model, len(texts), prober.seed)
        prober.pictures(texts, noise, steps=ATTENTION_STEPS, guidance=1.0)
    skipped.update({s.what: s for s in recorder.skipped})
    if reducer.value is None:
        return None
    shares, distances = [], []
    for row, (index, text) in enumerate(zip(where, texts, strict=True)):
        maps = reducer.value[row]
        end = min(len(prober.model.tokenizer(text).input_ids), prober.model.context_length)
        start, length = _span(prober, candidate, prober.carriers[index])
        mass, first = maps.mean((1, 2)), prober.model.first_token
        shares.append(float(mass[start : start + length].mean() / mass[first:].sum().clamp_min(1e-12)))
        distances.append(float(ftt(maps[first:end])))
    return float(np.mean(shares)), float(np.mean(distances))


def _span(prober: Prober, candidate: Candidate, carrier: str) -> tuple[int, int]:
    """Position and number of the tokens that the candidate adds or changes."""
    length = max(1, len(token_ids_of(prober.model, candidate, carrier)))
    clean, changed = (prober.model.tokenizer(t).input_ids for t in (carrier, candidate.apply(carrier) or carrier))
    start = next((i for i, (a, b) in enumerate(zip(clean, changed, strict=False)) if a != b), len(clean) - 1)
    return min(start, prober.model.context_length - 1), length
