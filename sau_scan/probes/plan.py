"""The plan of a scan: which candidates go through which rungs, and what that costs, known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sau_scan.findings import Skipped, Slot, SlotCoverage
from sau_scan.options import Budget
from sau_scan.probes.candidates import BLANK, Candidate
from sau_scan.probes.reading import TWO
from sau_scan.rules import Depth

EDGES = (Slot.PREFIX, Slot.SUFFIX)
SLOTS = (Slot.PREFIX, Slot.SUFFIX, Slot.INSIDE, Slot.REPLACE, Slot.PHRASE)

# A phrase is sampled by itself, from two noises a frame, next to kin of its modifier.
PHRASE_FRAMES, PHRASE_NOISES, PHRASE_KIN = (BLANK, f"a {BLANK}", f"the {BLANK}"), 2, 3
PHRASE_RIVALS = 4  # words that either word of a pair may be drawn as, if not as the other one
PHRASE_PREVIEWS = 16  # words looked at for another modifier or another null
PHRASE_NEUTRAL, PHRASE_SCALE = 3, 4  # words of no meaning, and of content, as which pictures of the kin are read, too
MOST_SLOTS = 3  # in which the leads of one scan lie, as a rule
ATTENTION_CARRIERS, ATTENTION_STEPS, ATTENTION_CONTROLS = 3, 6, 6


@dataclass(frozen=True)
class Rung:
    """One round of denoise probes: carriers and timesteps (as shares of the schedule) per candidate."""

    carriers: int
    times: tuple[float, ...]

    @property
    def passes(self) -> int:
        return self.carriers * len(self.times)


@dataclass(frozen=True)
class Recipe:
    """What a budget buys. ``cap``: UNet passes in all, for a vocabulary of a few thousand tokens.

    ``kept``: share of candidates that go on to the second rung, next to ``null`` random ones per slot.
    ``generated``: candidates confirmed by full sampling over ``pairs`` pairs of carrier and noise.
    ``wholes``: words sampled because a confirmed lead is a piece of them.
    ``phrase_words``: words of which phrases are made; ``phrases``: how many are sampled, two of a pair of words;
    ``second_chance``: the strongest pair that is not confirmed is looked at with another target, or another null.
    """

    cap: int
    depth: Depth
    slots: tuple[Slot, ...]
    text_carriers: int
    neutrals: int
    first: Rung
    second: Rung
    kept: float
    null: int
    attended: int
    generated: int
    controls: int
    pairs: int
    noises: int
    steps: int
    wholes: int
    phrases: int
    second_chance: bool
    phrase_words: int
    guidance: float = 5.0

    @property
    def sampling(self) -> int:
        """UNet passes of the generate tier: one picture costs two passes a step."""
        return (self.generated + self.controls + self.wholes) * self.pairs * self.steps * 2

    @property
    def attention_passes(self) -> int:
        """UNet passes of the attention tier."""
        recorded = self.attended + MOST_SLOTS * ATTENTION_CONTROLS if self.attended else 0
        return recorded * ATTENTION_CARRIERS * ATTENTION_STEPS

    @property
    def phrase_passes(self) -> int:
        """UNet passes of the phrase tier, should the weights give a lead to one: either word of a pair is drawn."""
        kin = PHRASE_KIN * max(1, self.phrases // 2)
        shown = 2 + PHRASE_NEUTRAL + PHRASE_SCALE
        passes = self._phrase_passes(2 * (self.phrases + kin), 2 * (2 * self.phrases + shown * kin))
        if not self.second_chance:
            return passes
        choice = self._phrase_passes(0, 2 * (1 + PHRASE_KIN) * (1 + PHRASE_RIVALS))
        preview = self._phrase_passes(2 * PHRASE_PREVIEWS, 4 * PHRASE_PREVIEWS) // len(PHRASE_FRAMES)
        return passes + choice + preview + self._phrase_passes(2 * (2 + PHRASE_KIN), 2 * (4 + shown * PHRASE_KIN))

    def _phrase_passes(self, drawn: int, read: int) -> int:
        return len(PHRASE_FRAMES) * PHRASE_NOISES * (2 * self.steps * drawn + len(TWO) * read)


RECIPES: dict[Budget, Recipe] = {
    Budget.QUICK: Recipe(
        cap=5_000,
        depth="quick",
        slots=(Slot.PREFIX,),
        text_carriers=4,
        neutrals=16,
        first=Rung(1, (0.9,)),
        second=Rung(4, (0.9,)),
        kept=0.02,
        null=64,
        attended=4,
        generated=4,
        controls=12,
        pairs=6,
        noises=3,
        steps=10,
        wholes=1,
        phrases=2,
        second_chance=False,
        phrase_words=160,
    ),
    Budget.STANDARD: Recipe(
        cap=22_000,
        depth="standard",
        slots=EDGES,
        text_carriers=6,
        neutrals=32,
        first=Rung(2, (0.9,)),
        second=Rung(6, (0.9,)),
        kept=0.04,
        null=160,
        attended=8,
        generated=8,
        controls=24,
        pairs=6,
        noises=3,
        steps=10,
        wholes=2,
        phrases=4,
        second_chance=True,
        phrase_words=288,
    ),
    Budget.DEEP: Recipe(
        cap=120_000,
        depth="deep",
        slots=EDGES,
        text_carriers=12,
        neutrals=64,
        first=Rung(4, (0.9,)),
        second=Rung(12, (0.9, 0.7)),
        kept=0.05,
        null=512,
        attended=24,
        generated=16,
        controls=32,
        pairs=12,
        noises=6,
        steps=20,
        wholes=4,
        phrases=8,
        second_chance=True,
        phrase_words=400,
    ),
}


@dataclass(frozen=True)
class Plan:
    """Candidates by slot, in order of urgency, and the passes that each stage will take at most."""

    recipe: Recipe
    candidates: dict[Slot, tuple[Candidate, ...]]
    totals: dict[Slot, int]
    passes: dict[str, int]
    text_passes: int
    skipped: tuple[Skipped, ...] = ()

    @property
    def unet_passes(self) -> int:
        return sum(self.passes.values())

    @property
    def coverage(self) -> tuple[SlotCoverage, ...]:
        return tuple(
            SlotCoverage(slot=s, probed=len(self.candidates.get(s, ())), total=n) for s, n in self.totals.items() if n
        )


def make_plan(
    recipe: Recipe,
    candidates: dict[Slot, Sequence[Candidate]],
    *,
    carriers: int,
    overhead: int,
    phrase_texts: int = 0,
    most: int | None = None,
    seed: int = 0,
) -> Plan:
    """A plan within ``most`` UNet passes (default: the recipe's cap).

    ``overhead``: passes already spent. ``phrase_texts``: text passes of the search for a phrase, if the weights show
    an edit.
    Where candidates are too many, those of the rules come first,
    then a seeded sample of the vocabulary; what is left out is coverage, and said.
    """
    limit = recipe.cap if most is None else min(most, recipe.cap)
    for each in (recipe, lean(recipe)):
        fixed = overhead + (each.phrase_passes if phrase_texts else 0)
        plan = _shrunk(each, candidates, carriers, fixed, limit, seed)
        plan = replace(plan, text_passes=plan.text_passes + phrase_texts)
        if plan.unet_passes <= limit:
            return plan
    reason = (
        f"the smallest plan of this budget takes {plan.unet_passes:,} UNet passes, and {max(0, limit):,} are allowed; "
        "take another budget"
    )
    return replace(plan, skipped=(Skipped(what="plan", reason=reason, planned=True),))


def lean(recipe: Recipe) -> Recipe:
    """The same with fewer leads confirmed, against fewer words, and no attention tier, which decides nothing."""
    return replace(
        recipe,
        null=recipe.null // 6,
        attended=0,
        generated=max(2, recipe.generated // 2),
        controls=max(12, recipe.controls // 2),  # for two slots
    )


def _shrunk(
    recipe: Recipe, candidates: dict[Slot, Sequence[Candidate]], carriers: int, fixed: int, limit: int, seed: int
) -> Plan:
    """The largest plan within ``limit`` passes, or else the smallest of this recipe."""
    totals = {slot: len(items) for slot, items in candidates.items()}
    room = 1.0
    plan = _priced(recipe, {slot: tuple(items) for slot, items in candidates.items()}, totals, carriers, fixed)
    while plan.unet_passes > limit and room > 0.01:
        room *= 0.95
        chosen = {slot: _urgent(items, room, seed) for slot, items in candidates.items()}
        plan = _priced(recipe, chosen, totals, carriers, fixed)
    return plan


def _urgent(items: Sequence[Candidate], share: float, seed: int) -> tuple[Candidate, ...]:
    """The rules' candidates, and a seeded ``share`` of the vocabulary's."""
    rules = [c for c in items if c.source != "vocabulary"]
    words = [c for c in items if c.source == "vocabulary"]
    order = np.random.default_rng([seed, 3]).permutation(len(words))
    return tuple(rules + [words[i] for i in order[: round(share * len(words))]])


def _priced(
    recipe: Recipe, chosen: dict[Slot, tuple[Candidate, ...]], totals: dict[Slot, int], carriers: int, fixed: int
) -> Plan:
    first = second = reference = text = 0
    for slot, items in chosen.items():
        if not items:
            continue
        edge = slot in EDGES
        again = min(len(items), second_rung_size(recipe, len(items)))
        for rung in (recipe.first, recipe.second):
            reference += len(rung.times) * (recipe.neutrals * min(rung.carriers, carriers) if edge else carriers)
        first += len(items) * recipe.first.passes
        second += again * recipe.second.passes
        text += len(items) * recipe.text_carriers
    passes = {
        "timing and phrases": fixed,
        "reference": reference,
        "first rung": first,
        "second rung": second,
        "attention": recipe.attention_passes,
        "generate": recipe.sampling,
    }
    return Plan(recipe, chosen, totals, passes, text)


def second_rung_size(recipe: Recipe, count: int) -> int:
    """How many candidates of a slot with ``count`` go through the second rung, null sample included."""
    return min(count, max(8, round(recipe.kept * count)) + recipe.null)
