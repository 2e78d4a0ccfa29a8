"""The generate tier: full sampling decides which leads are findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sau_scan.detectors.generation import PictureScore, score_pictures
from sau_scan.findings import Slot
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.carriers import Words
from sau_scan.probes.plan import Recipe
from sau_scan.probes.runner import Prober
from sau_scan.rules import Rule
from sau_scan.tiers.leads import Lead, Scored
from sau_scan.tiers.phrases import phrase_prober

AS_MUCH = 0.7  # a control moves the text output by at least this share of what the candidate does
FEWEST = 6


@dataclass(frozen=True)
class Confirmation:
    """A lead after full sampling. ``works``: a finding. ``partners``: what a phrase's first word does elsewhere."""

    lead: Lead
    score: PictureScore
    works: bool
    partners: float | None = None


def generate_tier(
    prober: Prober,
    recipe: Recipe,
    leads: Sequence[Lead],
    scored: dict[Slot, Scored],
    words: Words,
    rules: Sequence[Rule],
) -> list[Confirmation]:
    """Confirm at most ``recipe.generated`` leads (strongest first) against controls in the same slot."""
    chosen = _one_per_text(leads)[: recipe.generated]
    done = []
    slots = tuple(dict.fromkeys(lead.candidate.slot for lead in chosen))
    for slot in slots:
        group = [lead for lead in chosen if lead.candidate.slot is slot]
        if slot is Slot.PHRASE:
            done += [_confirm_phrase(prober, recipe, lead, words, rules) for lead in group]
        else:
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
    return score.confirmed


def _confirm_phrase(prober: Prober, recipe: Recipe, lead: Lead, words: Words, rules: Sequence[Rule]) -> Confirmation:
    """A phrase against other modifiers of its head; then its modifier before other heads, which must do nothing."""
    modifier, _, head = lead.candidate.text.rpartition(" ")
    score = _phrase_score(prober, recipe, lead.candidate, words, rules, head)
    if not score.confirmed:
        return Confirmation(lead, score, False)
    others = [w for w in words.responsive if w != head][:3]
    partners = [
        _phrase_score(prober, recipe, Candidate(f"{modifier} {h}", Slot.PHRASE), words, rules, h) for h in others
    ]
    clean = float(np.median([p.change / max(p.strongest_control, 1e-9) for p in partners])) if partners else 0.0
    return Confirmation(lead, score, clean < score.change / max(score.strongest_control, 1e-9) / 1.25, clean)


def _phrase_score(
    prober: Prober, recipe: Recipe, phrase: Candidate, words: Words, rules: Sequence[Rule], head: str
) -> PictureScore:
    own = phrase_prober(prober, words, rules, head, recipe.pairs)
    controls = [Candidate(text, Slot.PHRASE) for text in own.neutrals[: recipe.controls // 2]]
    made = own.generate([phrase, *controls], recipe.pairs, steps=recipe.steps, guidance=recipe.guidance)
    return score_pictures(made.latents[0], type(made)(made.latents[1:]), recipe.noises)
