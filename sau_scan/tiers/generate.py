"""The generate tier: full sampling decides which leads are findings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

import numpy as np
import torch

from sau_scan.detectors.calibration import Array
from sau_scan.detectors.generation import PictureScore, score_pictures
from sau_scan.findings import Slot
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.plan import Recipe
from sau_scan.probes.runner import Prober
from sau_scan.recordings import PictureRecording
from sau_scan.tiers.leads import Lead, Scored
from sau_scan.tiers.pieces import whole_of

ALIKE = 0.4  # a control moves the text output as far as the candidate does, to within this (natural logarithm)
FEWEST = 6
AS_MUCH = 0.7  # of a piece's change, by the word of which it is one


@dataclass(frozen=True)
class Confirmation:
    """A lead after full sampling. ``works``: it is a finding. ``means``: the word whose piece it is, and that does the
    same; then it is none. ``readable``: pictures could tell; of a phrase, they may not. ``drawn_as``: of a phrase, what
    its pictures are held against."""

    lead: Lead
    score: PictureScore
    works: bool
    means: str | None = None
    readable: bool = True
    drawn_as: str | None = None


def generate_tier(
    prober: Prober,
    recipe: Recipe,
    leads: Sequence[Lead],
    scored: dict[Slot, Scored],
    words: Sequence[str] = (),
    barred: Collection[str] = (),
) -> list[Confirmation]:
    """Confirm at most ``recipe.generated`` leads (strongest first) against controls in the same places.

    ``words``: of which a lead may be a piece. ``barred``: texts that stand out in whatever slot, sampled or not; they
    are no controls, or many triggers would hide one another.
    """
    chosen = [lead for lead in _one_per_text(leads) if prober.places(lead.candidate, 1)][: recipe.generated]
    # Every group has controls of its own, of which there are so many in the plan.
    groups = list(dict.fromkeys(map(_group, chosen)))[: max(1, recipe.controls // FEWEST)]
    done: list[tuple[Confirmation, PictureRecording]] = []
    for slot, letter in groups:
        own = [lead for lead in chosen if _group(lead) == (slot, letter)]
        pool = _controls(prober, recipe, scored[slot], letter, {*barred, *(lead.candidate.text for lead in chosen)})
        done += _confirm(prober, recipe, own, pool, max(FEWEST, recipe.controls // len(groups)))
    order = {lead.candidate: i for i, lead in enumerate(chosen)}
    return sorted(_without_pieces(prober, recipe, done, words), key=lambda c: (not c.works, order[c.lead.candidate]))


def _group(lead: Lead) -> tuple[Slot, str | None]:
    return lead.candidate.slot, lead.candidate.replaces


def _one_per_text(leads: Sequence[Lead]) -> list[Lead]:
    """The same text in two slots is one trigger: the slot where it is stronger stands for it."""
    seen: dict[tuple[str, str | None], Lead] = {}
    for lead in leads:
        seen.setdefault((lead.candidate.text, lead.candidate.replaces), lead)
    return list(seen.values())


def _controls(
    prober: Prober, recipe: Recipe, scored: Scored, letter: str | None, leading: set[str]
) -> tuple[list[Candidate], Array]:
    """Candidates whose texts do not lead, and how far they move the text output.

    A broken word moves the output whatever breaks it: for a replaced letter, ordinary letters in its place are controls
    as well, since there are few look-alikes of one letter.
    """
    shift = scored.text.shift.double().cpu().numpy()
    rows = [i for i, c in enumerate(scored.candidates) if c.text not in leading and c.replaces == letter]
    pool, shifts = [scored.candidates[i] for i in rows], shift[rows]
    if letter is None:
        return pool, shifts
    known = {*(c.text for c in pool), *leading, letter, letter.lower()}
    more = [Candidate(ch, Slot.REPLACE, letter, "control") for ch in ascii_lowercase if ch not in known]
    more = [c for c in more if prober.places(c, 1)]
    own = prober.text(more, recipe.text_carriers).shift.double().cpu().numpy() if more else shift[:0]
    return [*pool, *more], np.concatenate([shifts, own])


def _confirm(
    prober: Prober, recipe: Recipe, leads: Sequence[Lead], controls: tuple[list[Candidate], Array], count: int
) -> list[tuple[Confirmation, PictureRecording]]:
    """Leads of one group, each with its controls: those of a common pool that move the text output about as far."""
    items, shift = controls
    if len(items) < 2:
        return []
    log = np.log(np.maximum(shift, 1e-9))
    apart = np.abs(log - np.log([[max(lead.shift, 1e-9)] for lead in leads]))
    nearest = np.argsort(apart, axis=1, kind="stable")
    # Turn by turn, so that every lead has its nearest.
    spread = np.array(list(dict.fromkeys(nearest.T.flatten().tolist()))[:count])
    how = (recipe.pairs, recipe.noises)
    drawn = prober.generate([items[i] for i in spread], *how, steps=recipe.steps, guidance=recipe.guidance)
    own = prober.generate([lead.candidate for lead in leads], *how, steps=recipe.steps, guidance=recipe.guidance)
    done = []
    for row, lead in enumerate(leads):
        near = np.argsort(apart[row, spread], kind="stable")
        alike = int((apart[row, spread] <= ALIKE).sum())
        near = near[: max(FEWEST, alike)]
        pool = PictureRecording(drawn.latents[torch.from_numpy(near.copy())])
        done.append((_concluded(lead, score_pictures(own.latents[row], pool, recipe.noises)), pool))
    return done


def _without_pieces(
    prober: Prober, recipe: Recipe, done: Sequence[tuple[Confirmation, PictureRecording]], words: Sequence[str]
) -> list[Confirmation]:
    """A piece of a word that does what the word does, and no more, is no finding; so many are looked at as there are
    passes for. What makes all prompts one is no word's meaning."""
    found, left = [], recipe.wholes
    for item, pool in done:
        asked = item.works and left and item.lead.detector != "collapse"
        whole = whole_of(prober, item.lead.candidate, words) if asked else None
        if whole is not None:
            left -= 1
            how = (recipe.pairs, recipe.noises)
            drawn = prober.generate([whole], *how, steps=recipe.steps, guidance=recipe.guidance).latents[0]
            same = score_pictures(drawn, pool, recipe.noises)
            if item.score.like(same) and same.change > AS_MUCH * item.score.change:
                item = replace(item, works=False, means=whole.text)
        found.append(item)
    return found


def _concluded(lead: Lead, score: PictureScore) -> Confirmation:
    """Pictures decide."""
    if lead.detector == "collapse":
        # What only one of several encoders makes of it need not make all pictures one.
        return Confirmation(lead, score, score.converged or (bool(lead.encoder) and score.confirmed))
    return Confirmation(lead, score, lead.strong and score.confirmed)
