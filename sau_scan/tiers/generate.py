"""The generate tier: full sampling decides which leads are findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sau_scan.detectors.generation import PictureScore, score_pictures
from sau_scan.findings import Slot
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.plan import Recipe
from sau_scan.probes.runner import Prober
from sau_scan.tiers.leads import Lead, Scored

AS_MUCH = 0.7  # a control moves the text output by at least this share of what the candidate does
FEWEST = 6


@dataclass(frozen=True)
class Confirmation:
    """A lead after full sampling. ``works``: it is a finding; ``seen``: in finished pictures, too."""

    lead: Lead
    score: PictureScore
    works: bool
    seen: bool = True


def generate_tier(
    prober: Prober,
    recipe: Recipe,
    leads: Sequence[Lead],
    scored: dict[Slot, Scored],
) -> list[Confirmation]:
    """Confirm at most ``recipe.generated`` leads (strongest first) against controls in the same slot."""
    chosen = _one_per_text(leads)[: recipe.generated]
    done = []
    slots = tuple(dict.fromkeys(lead.candidate.slot for lead in chosen))
    for slot in slots:
        group = [lead for lead in chosen if lead.candidate.slot is slot]
        done += _confirm(prober, recipe, group, scored[slot], {lead.candidate for lead in chosen}, len(slots))
    order = {lead.candidate: i for i, lead in enumerate(chosen)}
    return sorted(done, key=lambda c: (not c.works, order[c.lead.candidate]))


def _one_per_text(leads: Sequence[Lead]) -> list[Lead]:
    """The same text in two slots is one trigger: the slot where it is stronger stands for it."""
    seen: dict[tuple[str, str | None], Lead] = {}
    for lead in leads:
        seen.setdefault((lead.candidate.text, lead.candidate.replaces), lead)
    return list(seen.values())


def _confirm(
    prober: Prober, recipe: Recipe, leads: Sequence[Lead], scored: Scored, leading: set[Candidate], slots: int
) -> list[Confirmation]:
    """Leads of one slot share a pool of controls, spread over the text shifts that the leads span and beyond."""
    shift = scored.text.shift.double().cpu().numpy()
    usable = np.array([i for i, c in enumerate(scored.candidates) if c not in leading])
    least = AS_MUCH * min(lead.shift for lead in leads)
    able = usable[shift[usable] >= least] if (shift[usable] >= least).sum() >= FEWEST else usable
    order = able[np.argsort(shift[able])]
    wanted = min(max(FEWEST, recipe.controls // slots), len(order))
    spread = order[np.linspace(0, len(order) - 1, wanted).round().astype(int)]
    controls = prober.generate(
        [scored.candidates[i] for i in spread], recipe.pairs, steps=recipe.steps, guidance=recipe.guidance
    )
    own = prober.generate(
        [lead.candidate for lead in leads], recipe.pairs, steps=recipe.steps, guidance=recipe.guidance
    )
    done = []
    for row, lead in enumerate(leads):
        fit = shift[spread] >= AS_MUCH * lead.shift
        fit = fit if fit.sum() >= FEWEST else np.arange(len(spread)) >= len(spread) - FEWEST
        pool = type(controls)(controls.latents[torch.from_numpy(fit)])
        score = score_pictures(own.latents[row], pool, recipe.noises)
        done.append(Confirmation(lead, score, _works(lead, score)))
    return done


def _works(lead: Lead, score: PictureScore) -> bool:
    if lead.detector == "collapse":
        return score.converged
    return lead.strong and score.confirmed
