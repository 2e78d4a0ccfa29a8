"""Which phrases are findings: leads whose pictures show another word, with other words in the modifier's place as null.

A lead from keys and values may have the wrong target or the wrong modifier, and an edit that leaks leaves few words
that could be the null; where pictures suggest better ones, they are looked at again in pictures of other noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import median

import numpy as np
import torch

from sau_scan.analysers.phrases import Pair
from sau_scan.detectors.calibration import robust_z
from sau_scan.probes.carriers import Words
from sau_scan.probes.plan import PHRASE_FRAMES, PHRASE_KIN, PHRASE_NEUTRAL, PHRASE_PREVIEWS, PHRASE_SCALE, Recipe
from sau_scan.probes.runner import Prober
from sau_scan.tiers.generate import Confirmation
from sau_scan.tiers.phrase_pictures import HALFWAY, MEANING, Album, Drawn, judge, kin, legible, meaning
from sau_scan.tiers.phrases import SIGNIFICANT, PhraseLead, PhraseTier

OUTSTANDING = 2.5  # robust deviations among the modifiers that were looked at; pictures of other noise decide


def confirm_phrases(prober: Prober, recipe: Recipe, tier: PhraseTier, words: Words) -> tuple[list[Confirmation], int]:
    """Finished pictures of each phrase and of its counterpart, as many as ``recipe`` has room for.

    With them, how many pairs of words lead to a phrase of which no pictures were made.

    There may be a second chance: for the first pair with another counterpart, since the words that an edit makes alike
    are not always those that come to lie nearest; or, where nothing could be read of it or no pair was found, with
    modifiers and a null that pictures suggest.
    """
    worth = [lead for lead in tier.leads if lead.p_value < SIGNIFICANT]
    if not recipe.phrases:
        return [], len({lead.pair for lead in worth})
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
            return _after_others(album, first[0], words)
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


def _after_others(album: Album, leads: Sequence[PhraseLead], words: Words) -> list[Confirmation]:
    """Confirmations with another null: of strong words those after which pictures of other noise tell the pair best.

    Some edits leak: they have spoilt their words after words of little meaning, and not after others of the modifier's
    kind. What is drawn right after some strong words and wrong after the modifier is the modifier's doing.
    """
    asked = {lead.modifier for lead in leads}
    strong = [w for w in _strong(leads[0], words, usual=True) if w not in asked]
    seen = _previewed(album, leads[0].pair, strong[:PHRASE_PREVIEWS])
    return _confirm(album, leads, _telling_most(seen, leads[0].pair, words), words)


def _screened(album: Album, lead: PhraseLead, words: Words) -> list[Confirmation]:
    """The modifier after which pictures of one of the pair show the other most, confirmed in pictures of other noise.

    Strong words are looked at: those after which keys and values tell the pair apart least, of which it may be one, and
    best. The null are those of all after which pictures tell it best.
    """
    half = PHRASE_PREVIEWS // 2
    least, best = (_strong(lead, words, usual=usual)[:half] for usual in (False, True))
    seen = _previewed(album, lead.pair, (*least, *best))
    others = _telling_most(seen, lead.pair, words)
    known = {m.word: m for m in lead.ranking}.get(_most_astray(seen, others, least) or "")
    if known is None:
        return []
    asked = replace(lead, modifier=known.word, score=known.score, p_value=known.p_value)
    return _confirm(album, [asked], others, words)


def _strong(lead: PhraseLead, words: Words, *, usual: bool) -> list[str]:
    """Responsive words after which keys and values tell the pair apart best, or least, the farthest out first."""
    able = set(words.responsive) - {lead.pair.head, lead.pair.target}
    ranking = lead.ranking if usual else reversed(lead.ranking)
    return [m.word for m in ranking if m.word in able and (m.score <= 0) == usual]


def _previewed(album: Album, pair: Pair, modifiers: Sequence[str]) -> dict[str, Drawn]:
    preview = Album(album.prober, album.recipe, PHRASE_FRAMES[:1], turn=1)
    return {w: Drawn.of(preview, w, pair, (pair.head, pair.target)) for w in modifiers}


def _telling_most(seen: Mapping[str, Drawn], pair: Pair, words: Words) -> list[str]:
    """A null; without the words as which its pictures will be read, too."""
    able = [w for w in seen if w not in _content(words, pair)]
    return sorted(able, key=lambda w: seen[w].apart, reverse=True)[:PHRASE_KIN]


def _most_astray(seen: Mapping[str, Drawn], others: Sequence[str], suspects: Sequence[str]) -> str | None:
    """Of ``suspects``, the modifier after which either word shows the other, about as much as that one does itself.

    And far more than after most of the modifiers ``seen``: after all alike, a word was edited by itself.
    """
    leans = {w: torch.stack(drawn.leans).mean(1).tolist() for w, drawn in seen.items()}
    able = [w for w in suspects if w in leans and w not in others]
    if not able or len(others) < 2:
        return None
    low, high = (median(leans[w][side] for w in others) for side in (0, 1))
    best, most = None, 0.0
    for side in (0, 1) if high > low else ():
        away = {w: (lean[0] - low, high - lean[1])[side] / (high - low) for w, lean in leans.items()}
        out = dict(zip(away, robust_z(np.array(list(away.values()))).tolist(), strict=True))
        worst = max(able, key=away.__getitem__)
        if HALFWAY < away[worst] < 1 + HALFWAY and out[worst] > max(OUTSTANDING, most):
            best, most = worst, out[worst]
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
