"""The plan of a scan: which candidates go through which rungs, and what that costs, known beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sau_scan.findings import Skipped, Slot, SlotCoverage
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.plan import EDGES, Recipe, bare, lean, second_rung_size


@dataclass(frozen=True)
class Plan:
    """Candidates by slot, and the passes that each stage will take at most.

    All of ``candidates`` go through the text encoder, and of each slot ``denoised`` through the UNet: which ones, the
    text tier says. ``confirming``: UNet passes of the smallest plan that makes pictures, where this one makes none.
    """

    recipe: Recipe
    candidates: dict[Slot, tuple[Candidate, ...]]
    denoised: dict[Slot, int]
    totals: dict[Slot, int]
    passes: dict[str, int]
    text_passes: int
    skipped: tuple[Skipped, ...] = ()
    confirming: int = 0

    @property
    def unet_passes(self) -> int:
        return sum(self.passes.values())

    @property
    def coverage(self) -> tuple[SlotCoverage, ...]:
        return tuple(SlotCoverage(slot=s, probed=self.denoised.get(s, 0), total=n) for s, n in self.totals.items() if n)

    @property
    def only_read(self) -> int:
        """Candidates that go through the text encoder, but not through the UNet."""
        return sum(map(len, self.candidates.values())) - sum(self.denoised.values())


def make_plan(
    recipe: Recipe,
    candidates: dict[Slot, Sequence[Candidate]],
    *,
    carriers: int,
    overhead: int,
    phrase_texts: int = 0,
    most: int | None = None,
    totals: dict[Slot, int] | None = None,
) -> Plan:
    """A plan within ``most`` UNet passes (default: the recipe's cap).

    ``overhead``: passes already spent. ``phrase_texts``: text passes of the search for a phrase, if the weights show
    an edit. ``totals``: how many candidates there are, where ``candidates`` are not all of them.
    Where candidates are too many for the UNet, there is room for those of the rules first, then for a share of the
    vocabulary; what is left out is coverage, and said. Where not even that fits, no pictures are made: leads then stay
    unconfirmed, which is said as well.
    """
    limit = recipe.cap if most is None else min(most, recipe.cap)
    items = {slot: tuple(some) for slot, some in candidates.items()}
    totals = totals or {slot: len(some) for slot, some in candidates.items()}
    confirming = 0
    for each in (recipe, lean(recipe), bare(recipe)):
        fixed = overhead + (each.phrase_passes if phrase_texts and each.phrases else 0)
        plan = _shrunk(each, items, totals, carriers, fixed, limit)
        plan = replace(plan, text_passes=plan.text_passes + phrase_texts)
        if plan.unet_passes <= limit:
            return plan if each.generated else replace(plan, confirming=confirming)
        confirming = plan.unet_passes
    reason = (
        f"the smallest plan of this budget takes {plan.unet_passes:,} UNet passes, and {max(0, limit):,} are allowed; "
        "take another budget"
    )
    return replace(plan, skipped=(Skipped(what="plan", reason=reason, planned=True),))


def text_share(
    candidates: dict[Slot, Sequence[Candidate]], seconds: Mapping[Slot, float], most: float, seed: int
) -> dict[Slot, Sequence[Candidate]]:
    """As many candidates as ``most`` seconds allow, each taking so many ``seconds`` in its slot: those of the rules,
    and a seeded share of the vocabulary's, the same in every slot."""
    fixed = {slot: _of_rules(items) for slot, items in candidates.items()}
    rules = sum(n * seconds[slot] for slot, n in fixed.items())
    words = sum((len(items) - fixed[slot]) * seconds[slot] for slot, items in candidates.items())
    share = (most - rules) / words if words else 1.0
    if share >= 1:
        return candidates
    return {slot: _urgent(items, max(0.0, share), seed) for slot, items in candidates.items()}


def _shrunk(
    recipe: Recipe,
    candidates: dict[Slot, tuple[Candidate, ...]],
    totals: dict[Slot, int],
    carriers: int,
    fixed: int,
    limit: int,
) -> Plan:
    """The largest plan within ``limit`` passes, or else the smallest of this recipe.

    Of the vocabulary a hundredth stays at least, and of the rules all, but for a recipe that makes no pictures.
    """
    share = {slot: (_of_rules(items), len(items)) for slot, items in candidates.items()}
    room, rules, least = 1.0, 1.0, 0.01 if recipe.generated else 0.001
    while True:
        counts = {s: math.ceil(rules * own) + round(room * (n - own)) for s, (own, n) in share.items()}
        plan = _priced(recipe, candidates, counts, totals, carriers, fixed)
        if plan.unet_passes <= limit or (room <= least and (recipe.generated or rules <= 0.1)):
            return plan
        room, rules = (room * 0.95, rules) if room > least else (room, rules * 0.95)


def _urgent(items: Sequence[Candidate], share: float, seed: int) -> tuple[Candidate, ...]:
    """The rules' candidates, and a seeded ``share`` of the vocabulary's."""
    rules = [c for c in items if c.source != "vocabulary"]
    words = [c for c in items if c.source == "vocabulary"]
    order = np.random.default_rng([seed, 3]).permutation(len(words))
    return tuple(rules + [words[i] for i in order[: int(share * len(words))]])


def _of_rules(items: Sequence[Candidate]) -> int:
    return sum(c.source != "vocabulary" for c in items)


def _priced(
    recipe: Recipe,
    candidates: dict[Slot, tuple[Candidate, ...]],
    counts: dict[Slot, int],
    totals: dict[Slot, int],
    carriers: int,
    fixed: int,
) -> Plan:
    first = second = reference = 0
    for slot, count in counts.items():
        if not count:
            continue
        again = min(count, second_rung_size(recipe, count))
        for rung, size in ((recipe.first, count), (recipe.second, again)):
            if slot in EDGES:
                reference += len(rung.times) * recipe.neutrals * min(rung.carriers, carriers)
            else:
                reference += len(rung.times) * min(carriers, size * rung.carriers)
        first += count * recipe.first.passes
        second += again * recipe.second.passes
    passes = {
        "timing and phrases": fixed,
        "reference": reference,
        "first rung": first,
        "second rung": second,
        "attention": recipe.attention_passes,
        "generate": recipe.sampling,
    }
    text = recipe.text_carriers * sum(map(len, candidates.values()))
    return Plan(recipe, candidates, counts, totals, passes, text)
