"""The text tier: every candidate through the text encoder; no UNet pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sau_scan.confusables import is_letter_or_sign, looks_like
from sau_scan.detectors.calibration import adjusted, tail_p_values
from sau_scan.findings import Component, Slot
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.planning import Plan
from sau_scan.probes.runner import Prober
from sau_scan.recordings import TextRecording
from sau_scan.tiers.leads import Lead, Scored, evidence

# Of what carriers differ by: a collapse leaves less than half of it, and a tenth where it is that of one of several
# encoders alone, which strong words push together more than all.
LOST, LOST_BY_ONE = 0.5, 0.1


def text_tier(prober: Prober, plan: Plan) -> tuple[dict[Slot, Scored], list[Lead]]:
    """All candidates through the text encoder; leads are those whose outputs collapse, or move beyond their slot."""
    scored = {
        slot: Scored(items, prober.text(items, plan.recipe.text_carriers))
        for slot, items in plan.candidates.items()
        if items
    }
    encoders = ("", *(output.encoder for output in prober.outputs))
    leads = _collapses(list(scored.values()), encoders) if scored else []
    for slot in (Slot.INSIDE, Slot.REPLACE):
        if slot in scored:
            leads += _shifts(scored[slot].candidates, scored[slot].text)
    return scored, one_letter_each(sorted(leads, key=lambda lead: (lead.p_value, -lead.score)))


def one_letter_each(leads: Sequence[Lead]) -> list[Lead]:
    """Leads in order, each character once in a slot; one that stands for a letter it looks like is named for that.

    The letter is what an attacker has it stand for: that it does the same beside a prompt follows from it.
    """
    fitting: dict[str, Lead] = {}
    for lead in leads:
        if _fits(lead.candidate):
            fitting.setdefault(lead.candidate.text, lead)
    chosen: dict[tuple[str, Slot], Lead] = {}
    for lead in leads:
        named = fitting.get(lead.candidate.text, lead)
        chosen.setdefault((named.candidate.text, named.candidate.slot), named)
    return list(chosen.values())


def _fits(candidate: Candidate) -> bool:
    return candidate.slot is Slot.REPLACE and looks_like(candidate.text, candidate.replaces or "")


def _collapses(slots: Sequence[Scored], encoders: Sequence[str] = ("",)) -> list[Lead]:
    """AMDET (2512.00343) and T2IShield (2407.04215) saw it in given prompts: different prompts, one output.

    The null is everything in all slots: content words, which push prompts together most, are in it. A letter or sign
    means nothing, so it is held against its own kind, too, among which content words do not hide it. Where there are
    several encoders, each is also looked at by itself: an attack may be in one of them. ``encoders``: whose output each
    column of ``retained`` is of; the first is of all.
    """
    items = [c for s in slots for c in s.candidates]
    retained = torch.cat([s.text.retained for s in slots]).double().cpu().numpy()
    shift = torch.cat([s.text.shift for s in slots]).tolist()
    signs = [i for i, c in enumerate(items) if c.slot is not Slot.REPLACE and is_letter_or_sign(c.text)]
    score = -np.log(np.maximum(retained, 1e-6))
    groups = [
        (output, group)
        for output in range(retained.shape[1])
        for group in (np.arange(len(items)), np.array(signs, dtype=int))
        if len(group)
    ]
    tries = [(output, group, i) for output, group in groups for i in group.tolist()]
    # All tries are paid for together.
    p_values = adjusted(np.concatenate([tail_p_values(score[group, output]) for output, group in groups]))
    found: dict[int, Lead] = {}
    for row in np.flatnonzero(p_values < 0.01).tolist():
        output, group, i = tries[row]
        left, p = float(retained[i, output]), float(p_values[row])
        by = encoders[output]
        if left < (LOST_BY_ONE if by else LOST):
            middle, low, high = np.quantile(retained[group, output], (0.5, 0.05, 0.95))
            told = (evidence(_left_by(by), left, middle, low, high, p),)
            lead = Lead(items[i], "collapse", Component.TEXT_ENCODER, 1 - left, p, shift[i], told, encoder=by)
            found[i] = max(found.get(i, lead), lead, key=_telling)
    return list(found.values())


def _telling(lead: Lead) -> tuple[bool, float]:
    """That all encoders together leave as little outweighs what one does."""
    return not lead.encoder and 1 - lead.score < LOST_BY_ONE, lead.score


def _left_by(encoder: str) -> str:
    return "difference between prompts left" + (f" by {encoder}" if encoder else "")


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
        for i in np.flatnonzero(p_values < 0.01).tolist()
    ]
