"""What a budget buys: rungs, sizes and the passes of each tier."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sau_scan.findings import Slot
from sau_scan.options import Budget
from sau_scan.probes.candidates import BLANK
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
BARE_NEUTRALS, BARE_NULL = 8, 8


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


def lean(recipe: Recipe) -> Recipe:
    """The same with fewer leads confirmed, against fewer words, and no attention tier, which decides nothing."""
    return replace(
        recipe,
        null=recipe.null // 6,
        attended=0,
        generated=max(2, recipe.generated // 2),
        controls=max(12, recipe.controls // 2),  # for two slots
    )


def bare(recipe: Recipe) -> Recipe:
    """The same without pictures: what stands out is named, and not confirmed."""
    return replace(
        lean(recipe),
        neutrals=min(recipe.neutrals, BARE_NEUTRALS),
        null=min(recipe.null, BARE_NULL),
        generated=0,
        controls=0,
        wholes=0,
        phrases=0,
        second_chance=False,
    )


def second_rung_size(recipe: Recipe, count: int) -> int:
    """How many candidates of a slot with ``count`` go through the second rung, null sample included."""
    return min(count, max(8, round(recipe.kept * count)) + recipe.null)
