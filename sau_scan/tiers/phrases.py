"""The phrase tier: two words that may together be drawn as something else, with other words in their place as null.

It runs where the weights show a closed-form edit. Text passes find which two words keys and values hardly tell apart
after which modifier; pictures decide (tiers/phrase_confirmation.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sau_scan.analysers.null_directions import NullDirections
from sau_scan.analysers.phrases import Collapse, Count, Pair, Sight, collapses, most_alike, ratios, rivals, told_apart
from sau_scan.detectors.calibration import Array, adjusted, robust_z, tail_p_values
from sau_scan.probes.candidates import BLANK, Vocabulary
from sau_scan.probes.carriers import Words, crowded_frames
from sau_scan.probes.plan import PHRASE_RIVALS, Recipe
from sau_scan.probes.runner import Prober

FRAMES = 3
BEFORE = 8  # neutral words before the words of the vocabulary, to see which of them are taken for others
MODIFIERS = 4096
COLLAPSES = 2  # pairs of words looked at more closely, next to the one that is told apart least after all modifiers
SIGNIFICANT = 0.05  # among all modifiers, for a phrase that pictures show, too


@dataclass(frozen=True)
class Modifier:
    """A word before a pair. ``score``: robust deviation among all words of how little the pair is told apart."""

    word: str
    score: float
    p_value: float


@dataclass(frozen=True)
class PhraseLead:
    """``modifier`` before one of ``pair``; ``score``: robust deviation among all modifiers, with its p-value.

    ``ranking``: all modifiers, best first: those after which keys and values tell the pair apart most. ``rivals``: of
    head and target, other words that they are hardly told from after the modifier, nearest first. ``measured``: of
    which phrases the score is, where the pair has come to be another since.
    """

    modifier: str
    pair: Pair
    score: float
    p_value: float
    ranking: tuple[Modifier, ...] = ()
    rivals: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    measured: str = ""

    @property
    def usual(self) -> tuple[str, ...]:
        """Words after which the pair is told apart as well as after most, best first."""
        return tuple(m.word for m in self.ranking if m.score <= 0)

    @property
    def rank(self) -> float:
        """An edit leaves some of itself to its modifier before other words, and to its words after other modifiers:
        the pair is told apart least by itself, and less yet after the modifier."""
        return self.score - self.pair.score


@dataclass(frozen=True)
class PhraseTier:
    """Leads, pair by pair; the pair told apart least after all modifiers; how many were tried.

    ``edited``: the same pair where an edit of a word by itself explains further leads, which were left out.
    """

    leads: tuple[PhraseLead, ...]
    pair: Pair | None
    tried: int
    edited: Pair | None = None


def phrase_texts(recipe: Recipe, vocabulary: Vocabulary) -> int:
    """Text passes of the search for phrases, at most."""
    modifiers = min(len(vocabulary.plain_words), MODIFIERS) + 1  # the one of the pair may be none of them
    return recipe.phrase_words**2 + modifiers * (BEFORE + 2 * FRAMES * (COLLAPSES + 1))


def phrase_tier(
    prober: Prober, recipe: Recipe, null: NullDirections, vocabulary: Vocabulary, words: Words
) -> PhraseTier:
    """Modifiers after which keys and values tell two words apart less than after others."""
    if not len(null.basis):
        return PhraseTier((), None, 0)

    def count(texts: int) -> None:
        prober.counter.text += texts
        prober.progress.advance(texts)

    sight = Sight.of(prober.model, null)
    plain = vocabulary.plain_words[:MODIFIERS]
    alike = most_alike(prober.model, sight, plain, words.neutral[:BEFORE], recipe.phrase_words // 4, count)
    content = list(dict.fromkeys((*alike, *words.content)))[: recipe.phrase_words]
    table = ratios(prober.model, sight, content, count)
    least, found = collapses(table, content, COLLAPSES)
    if least is not None and least not in [c.pair for c in found]:
        found = (*found, Collapse("", least, 0.0))
    groups = [_leads(prober, sight, vocabulary, words, collapse, count) for collapse in found]
    most = PHRASE_RIVALS if recipe.second_chance else 0
    near = partial(rivals, table, content, most=most)
    leads = tuple(replace(d, rivals=near(modifier=d.modifier, pair=d.pair)) for group in groups for d in group)
    left = _without_edited(leads, least)
    return PhraseTier(left, least, len(content) ** 2, least if len(left) < len(leads) else None)


def _without_edited(leads: tuple[PhraseLead, ...], least: Pair | None) -> tuple[PhraseLead, ...]:
    """Leads but for those of a word that was edited by itself: it collapses with the word that it is drawn as,
    whatever stands before them, and it is no wonder if after some modifiers it collapses with a third word."""
    of_itself = [lead.p_value for lead in leads if lead.pair == least]
    if least is None or not least.stands_apart or min(of_itself, default=1.0) < SIGNIFICANT:
        return leads
    edited = {least.head, least.target}
    return tuple(lead for lead in leads if lead.pair == least or not edited & {lead.pair.head, lead.pair.target})


def _leads(
    prober: Prober, sight: Sight, vocabulary: Vocabulary, words: Words, collapse: Collapse, count: Count
) -> list[PhraseLead]:
    """The modifier of ``collapse``, and the one that stands out most of the whole vocabulary.

    The former comes first: it is a word of content, as those of a phrase are; others may excite the edit as well. But a
    piece of a word, which may act like it, comes after the word.
    """
    pair, rows = collapse.pair, crowded_frames(words.responsive, FRAMES, prober.seed)
    places = [row.replace(f" {BLANK}", "") + f" {BLANK}" for row in rows]
    # A word twice is no phrase, and is alike by construction.
    pool = [collapse.modifier, *vocabulary.plain_words[:MODIFIERS]]
    pool = [m for m in dict.fromkeys(pool) if m and m not in (pair.head, pair.target)]
    if len(pool) < 2:
        return []
    scores = robust_z(-np.log(told_apart(prober.model, sight, pair, pool, places, count)))
    p_values = adjusted(tail_p_values(scores))
    strongest = [*([0] if collapse.modifier else []), int(scores.argmax())]
    both = dict.fromkeys([*(_whole(i, pool, scores) for i in strongest), *strongest])
    chosen = sorted(both, key=lambda i: any(pool[i] != pool[j] and pool[i] in pool[j] for j in both))
    made = [Modifier(w, float(z), float(p)) for w, z, p in zip(pool, scores, p_values, strict=True)]
    ranking = tuple(made[i] for i in scores.argsort(kind="stable"))
    return [PhraseLead(made[i].word, pair, made[i].score, made[i].p_value, ranking) for i in chosen]


def _whole(i: int, pool: Sequence[str], scores: Array) -> int:
    """Of the words of ``pool`` of which ``pool[i]`` is a piece, that which stands out most, if half as much; else i."""
    wholes = [j for j, word in enumerate(pool) if pool[i] in word and word != pool[i]]
    best = max(wholes, key=lambda j: float(scores[j]), default=i)
    return best if scores[best] > scores[i] / 2 else i
