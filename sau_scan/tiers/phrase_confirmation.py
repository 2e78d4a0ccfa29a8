"""Which phrases are findings: leads whose pictures show another word, with other words in the modifier's place as null.

A lead from keys and values may have the wrong target or the wrong modifier, and an edit that leaks leaves few words
that could be the null; where pictures suggest better ones, they are looked at again in pictures of other noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import median

import torch

from sau_scan.analysers.phrases import Pair
from sau_scan.probes.carriers import Words
from sau_scan.probes.plan import PHRASE_FRAMES, PHRASE_KIN, PHRASE_NEUTRAL, PHRASE_PREVIEWS, PHRASE_SCALE, Recipe
from sau_scan.probes.runner import Prober
from sau_scan.tiers.generate import Confirmation
from sau_scan.tiers.phrase_pictures import HALFWAY, MEANING, Album, Drawn, judge, kin, legible, meaning
from sau_scan.tiers.phrases import SIGNIFICANT, PhraseLead, PhraseTier


def confirm_phrases(prober: Prober, recipe: Recipe, tier: PhraseTier, words: Words) -> tuple[list[Confirmation], int]:
    """Finished pictures of each phrase and of its counterpart, as many as ``recipe`` has room for.

    With them, how many pairs of words lead to a phrase of which no pictures were made.

    There may be a second chance: for the first pair with another counterpart, since the words that an edit makes alike
    are not always those that come to lie nearest; or, where nothing could be read of it or no pair was found, with
    modifiers and a null that pictures suggest.
    """
    worth = [lead for lead in tier.leads if lead.p_value < SIGNIFICANT]
    groups = [list(group)[:2] for _, group in groupby(worth, key=lambda lead: lead.pair)]
    groups.sort(key=lambda group: -max(lead.rank for lead in group))
    album, groups = Album(prober, recipe), groups[: max(1, recipe.phrases // 2)]
    nulls = [_kin(prober, group[0], words) for group in groups]
    found = [_confirm(album, group, null, words) for group, null in zip(groups, nulls, strict=True)]
    again = []
    if recipe.second_chance:
        first = (groups[0], nulls[0], found[0]) if found and found[0] else None
        again = _second_chance(album, tier, first, any(c.works for done in found for c in done), words)
    undrawn = len({lead.pair for lead in worth}) - sum(map(bool, found))
    # The first pair leads, found at once or not.
    return [c for done in (*found[:1], again, *found[1:]) for c in done], undrawn


def _second_chance(
    album: Album,
    tier: PhraseTier,
    first: tuple[list[PhraseLead], list[str], list[Confirmation]] | None,
    found: bool,
    words: Words,
) -> list[Confirmation]:
    """``first``: leads, null and confirmations of the first pair. ``found``: some pair's phrase is a finding."""
    if first is not None and not any(c.works for c in first[2]):
        if not any(c.readable for c in first[2]):
            return _screened(album, first[0][0], words)
        if again := _as_rival(album, first[0], first[1], words):
            return again
    edited = [lead for lead in tier.leads if lead.pair == tier.pair and lead.pair.stands_apart]
    return _screened(album, edited[0], words) if edited and not found else []


def _as_rival(album: Album, leads: Sequence[PhraseLead], others: Sequence[str], words: Words) -> list[Confirmation]:
    """Confirmations with another target, in pictures of other noise than those that suggest it; none if none do."""
    pair = _as_drawn(album, leads[0], others)
    if pair == leads[0].pair:
        return []
    names, old = (pair.head, pair.target), leads[0].pair
    moved = [
        replace(lead, pair=pair, measured=f"{lead.modifier} {old.head} / {lead.modifier} {old.target}")
        for lead in leads
        if lead.modifier not in names
    ]
    anew = Album(album.prober, album.recipe, turn=1)
    return _confirm(anew, moved, [word for word in others if word not in names], words)


def _screened(album: Album, lead: PhraseLead, words: Words) -> list[Confirmation]:
    """The modifier after which pictures of one of the pair show the other most, confirmed in pictures of other noise.

    Strong words are looked at: those after which keys and values tell the pair apart least, and best. The null are
    those of them after which pictures tell it best: an edit that leaks has spoilt its words after many others, of
    little meaning before all. Nothing is found if it has after most: a word was edited by itself.
    """
    pair, strong, half = lead.pair, set(words.responsive), PHRASE_PREVIEWS // 2
    taken = {pair.head, pair.target, *_content(words, pair)}
    least = [m.word for m in reversed(lead.ranking) if m.word in strong and m.score > 0][:half]
    best = [w for w in lead.usual if w in strong - taken][:half]
    preview = Album(album.prober, album.recipe, PHRASE_FRAMES[:1], turn=1)
    seen = {w: Drawn.of(preview, w, pair, (pair.head, pair.target)) for w in (*least, *best)}
    others = sorted(seen, key=lambda w: seen[w].apart, reverse=True)[:PHRASE_KIN]
    suspect = _most_astray(seen, others)
    known = {m.word: m for m in lead.ranking}.get(suspect or "")
    if known is None:
        return []
    asked = replace(lead, modifier=known.word, score=known.score, p_value=known.p_value)
    return _confirm(album, [asked], others, words)


def _most_astray(seen: Mapping[str, Drawn], others: Sequence[str]) -> str | None:
    """Of the modifiers ``seen`` but ``others``, that after which either word shows the other one most, and more than
    half; of a word that does so after most modifiers, none."""
    leans = {w: torch.stack(drawn.leans).mean(1).tolist() for w, drawn in seen.items()}
    low, high = (median(leans[w][side] for w in others) for side in (0, 1))
    if high <= low:
        return None
    best, most = None, HALFWAY
    for side, itself in enumerate((low, high)):
        away = {w: (lean[side] - itself) * (-1 if side else 1) / (high - low) for w, lean in leans.items()}
        if median(away.values()) < HALFWAY:
            worst = max((w for w in away if w not in others), key=away.__getitem__, default=None)
            if worst is not None and away[worst] > most:
                best, most = worst, away[worst]
    return best


def _kin(prober: Prober, lead: PhraseLead, words: Words) -> list[str]:
    """The null of ``lead``."""
    # A word that the edit acts on as well, or that was edited with it, would be no null.
    usual = set(lead.usual)
    pool = [w for w in dict.fromkeys((*words.content, *words.neutral[:200])) if w in usual]
    return kin(prober, lead.modifier, lead.pair.head, pool)


def _confirm(album: Album, leads: Sequence[PhraseLead], others: Sequence[str], words: Words) -> list[Confirmation]:
    """Confirmations of the leads of one pair, with ``others`` in the modifier's place as the null; none without one."""
    if len(others) < 2:
        return []
    pair = leads[0].pair
    shown = (pair.head, pair.target, *words.neutral[:PHRASE_NEUTRAL], *_content(words, pair))
    usual = legible([Drawn.of(album, modifier, pair, shown) for modifier in others])
    drawn = [Drawn.of(album, lead.modifier, pair, shown[:2]) for lead in leads]
    cold = [word in set(words.neutral) for word in (pair.head, pair.target)]
    both = all(m > MEANING or not c for m, c in zip(meaning(usual), cold, strict=True))
    return [judge(lead, own, usual, both) for lead, own in zip(leads, drawn, strict=True)]


def _as_drawn(album: Album, lead: PhraseLead, others: Sequence[str]) -> Pair:
    """The pair of ``lead`` with the rival as its target that pictures after the modifier show most, if more than half.

    0: as much as after ``others``, where the word itself is drawn; 1: as much more than that word as it is less there.
    """
    best, most = lead.pair, 0.0
    for word, rivals in zip((lead.pair.head, lead.pair.target), lead.rivals, strict=True):
        own, *usual = (album.read(f"{m} {word}", (word, *rivals)).mean(0) for m in (lead.modifier, *others))
        there, here = (errors[1:] - errors[0] for errors in (torch.stack(usual).mean(0), own))
        for rival, away, left in zip(rivals, there.tolist(), here.tolist(), strict=True):
            # A word that hardly shows is soon all the way; of several, that counts which explains more.
            if away > 0 and (away - left) / (2 * away) > HALFWAY and away - left > most:
                best, most = replace(lead.pair, head=word, target=rival), away - left
    return best


def _content(words: Words, pair: Pair) -> tuple[str, ...]:
    """Words that surely show in pictures, from the strongest to the least of the responsive ones."""
    others = [w for w in words.responsive if w not in (pair.head, pair.target)]
    return tuple(others[:: max(1, len(others) // PHRASE_SCALE)][:PHRASE_SCALE])
