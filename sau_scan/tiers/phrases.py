"""The phrase tier: two words that together do what neither does alone, with other words in either place as the null."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sau_scan.analysers.null_directions import NullDirections
from sau_scan.analysers.phrases import PhraseLead, phrase_leads, word_leads
from sau_scan.findings import Component, Slot
from sau_scan.probes.candidates import Candidate, Vocabulary
from sau_scan.probes.carriers import Words, crowded_frames, frames, high_noise
from sau_scan.probes.plan import Recipe
from sau_scan.probes.runner import Prober
from sau_scan.rules import Rule
from sau_scan.tiers.leads import Lead, evidence

FRAMES = 4
HEADS = 8
PER_HEAD = 16  # neutral modifiers that a head's phrases are compared with


@dataclass(frozen=True)
class PhraseTier:
    """Leads to phrases, single words ranked by their null share (for an edit without a phrase), and what was tried."""

    leads: tuple[Lead, ...]
    words: tuple[PhraseLead, ...]
    tried: int


def phrase_prober(prober: Prober, words: Words, rules: Sequence[Rule], head: str, count: int = FRAMES) -> Prober:
    """A prober whose carriers are frames and whose neutrals are other modifiers before ``head``."""
    others = [w for w in words.responsive if w != head]
    return replace(
        prober,
        carriers=frames(others, rules, count, prober.seed),
        neutrals=tuple(f"{n} {head}" for n in words.neutral[:PER_HEAD]),
    )


def phrase_tier(
    prober: Prober, recipe: Recipe, null: NullDirections, vocabulary: Vocabulary, words: Words, rules: Sequence[Rule]
) -> PhraseTier:
    """Where the weights show an edit: heads along the null directions, their modifiers along what the edit reads out,
    then what the best pairs do to the noise beyond other modifiers."""
    if not len(null.basis):
        return PhraseTier((), (), 0)

    def count(texts: int) -> None:
        prober.counter.text += texts

    plain, device = vocabulary.plain_words, prober.model.device
    singles = word_leads(prober.model, plain, null.basis.to(device), count)
    heads = [lead.text for lead in singles[:HEADS]]
    crowded = crowded_frames(words.responsive, FRAMES, prober.seed)
    pairs = phrase_leads(prober.model, plain, heads, crowded, null.top.to(device), count)
    best = [p for head in heads for p in [q for q in pairs if q.words[-1] == head][: recipe.phrases // len(heads)]]
    return PhraseTier(_measure(prober, best, words, rules), tuple(singles[:8]), len(pairs))


def _measure(prober: Prober, pairs: Sequence[PhraseLead], words: Words, rules: Sequence[Rule]) -> tuple[Lead, ...]:
    by_head: dict[str, list[PhraseLead]] = defaultdict(list)
    for pair in pairs:
        by_head[pair.words[-1]].append(pair)
    leads = []
    times = [high_noise(prober.model)]
    for head, group in by_head.items():
        own = phrase_prober(prober, words, rules, head)
        items = [Candidate(p.text, Slot.PHRASE, source="null-direction") for p in group]
        controls = [Candidate(text, Slot.PHRASE) for text in own.neutrals]
        both = [*items, *controls]
        effect = own.noise(both, FRAMES, times).effect.double().cpu().numpy()
        shift = own.text(both, FRAMES).shift.double().cpu().numpy()
        usual, moved = (float(np.median(v[len(items) :])) for v in (effect, shift))
        # Against other modifiers of the same head: what a word's meaning moves, it moves in the text as well.
        gain = np.log(effect / usual) - np.log(np.maximum(shift / moved, 1.0))
        for i, pair in enumerate(group):
            found = (
                evidence("read out by the edit, beyond other words (z)", pair.score),
                evidence("effect on the noise, against other words before it", effect[i] / usual, 1.0),
            )
            leads.append(
                Lead(items[i], "null-direction", Component.CROSS_ATTENTION, float(gain[i]), 1.0, float(shift[i]), found)
            )
    return tuple(sorted(leads, key=lambda lead: -lead.score))
