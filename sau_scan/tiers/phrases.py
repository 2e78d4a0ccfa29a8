"""The phrase tier: two words that together are drawn as something else, with other words in their place as the null.

It runs where the weights show a closed-form edit. Text passes find which two words are drawn alike after which
modifier; pictures, read by the suspect model itself, decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

import numpy as np
import torch
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor

from sau_scan.analysers.null_directions import NullDirections, stacked_projections
from sau_scan.analysers.phrases import Collapse, Count, Pair, collapses, most_alike, ratios, told_apart
from sau_scan.detectors.calibration import adjusted, robust_z, tail_p_values
from sau_scan.detectors.generation import PictureScore, score_pictures
from sau_scan.findings import Component, Slot
from sau_scan.probes.candidates import BLANK, Candidate, Vocabulary
from sau_scan.probes.carriers import Words, crowded_frames, noise_like
from sau_scan.probes.plan import (
    PHRASE_FRAMES,
    PHRASE_KIN,
    PHRASE_NEUTRAL,
    PHRASE_NOISES,
    PHRASE_SCALE,
    Recipe,
)
from sau_scan.probes.reading import read_as
from sau_scan.probes.runner import Prober
from sau_scan.recordings import PictureRecording
from sau_scan.tiers.generate import Confirmation
from sau_scan.tiers.leads import Lead, evidence

FRAMES = 3
BEFORE = 8  # neutral words before the words of the vocabulary, to see which of them are taken for others
MODIFIERS = 4096
COLLAPSES = 2  # pairs of words looked at more closely, next to the one that is told apart least after all modifiers
SIGNIFICANT = 0.05  # among all modifiers, for a phrase that pictures show, too
HALFWAY = 0.5  # between pictures of the one word and of the other
READABLE = 0.01  # probability that two words are told apart as well by chance
TELLING = 0.25  # of what tells words of content apart, or the two words are too much alike for one to be the other
MEANING = 0.25  # of what tells the two words apart, or one of them hardly shows in its own pictures
NEUTRAL = slice(2, 2 + PHRASE_NEUTRAL)  # texts of no meaning, behind the pair; words of content come after them


@dataclass(frozen=True)
class PhraseLead:
    """``modifier`` before one of ``pair``; ``score``: robust deviation among all modifiers, with its p-value.

    ``usual``: words after which keys and values tell the pair apart as well as after most.
    """

    modifier: str
    pair: Pair
    score: float
    p_value: float
    usual: frozenset[str] = frozenset()

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

    projections = stacked_projections(prober.model)
    plain = vocabulary.plain_words[:MODIFIERS]
    alike = most_alike(prober.model, projections, plain, words.neutral[:BEFORE], recipe.phrase_words // 4, count)
    content = list(dict.fromkeys((*alike, *words.content)))[: recipe.phrase_words]
    least, found = collapses(ratios(prober.model, projections, content, count), content, COLLAPSES)
    if least is not None and least not in [c.pair for c in found]:
        found = (*found, Collapse("", least, 0.0))
    groups = [_leads(prober, projections, vocabulary, words, collapse, count) for collapse in found]
    leads = tuple(lead for group in groups for lead in group)
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
    prober: Prober, projections: Tensor, vocabulary: Vocabulary, words: Words, collapse: Collapse, count: Count
) -> list[PhraseLead]:
    """The modifier of ``collapse``, and the one that stands out most of the whole vocabulary.

    The former comes first: it is a word of content, as those of a phrase are; others may excite the edit as well. But a
    piece of a word comes after the word.
    """
    pair, rows = collapse.pair, crowded_frames(words.responsive, FRAMES, prober.seed)
    places = [row.replace(f" {BLANK}", "") + f" {BLANK}" for row in rows]
    # A word twice is no phrase, and is alike by construction.
    pool = [collapse.modifier, *vocabulary.plain_words[:MODIFIERS]]
    pool = [m for m in dict.fromkeys(pool) if m and m not in (pair.head, pair.target)]
    if len(pool) < 2:
        return []
    scores = robust_z(-np.log(told_apart(prober.model, projections, pair, pool, places, count)))
    p_values = adjusted(tail_p_values(scores))
    both = dict.fromkeys([*([0] if collapse.modifier else []), int(scores.argmax())])
    chosen = sorted(both, key=lambda i: any(pool[i] != pool[j] and pool[i] in pool[j] for j in both))
    usual = frozenset(word for word, score in zip(pool, scores, strict=True) if score <= 0)
    return [PhraseLead(pool[i], pair, float(scores[i]), float(p_values[i]), usual) for i in chosen]


def kin(prober: Prober, modifier: str, head: str, pool: Sequence[str]) -> list[str]:
    """The words of ``pool`` that move the text output of ``head`` most as ``modifier`` does."""
    pooled = prober.encode([f"a {w} {head}" for w in (modifier, *pool)])[1]
    pooled = pooled - pooled[1:].median(0).values
    likeness = torch.nn.functional.cosine_similarity(pooled[:1], pooled[1:])
    return [pool[i] for i in likeness.argsort(descending=True)[:PHRASE_KIN].tolist()]


def confirm_phrases(prober: Prober, recipe: Recipe, leads: Sequence[PhraseLead], words: Words) -> list[Confirmation]:
    """Finished pictures of each phrase and of its counterpart, as many as ``recipe`` has room for."""
    worth = [lead for lead in leads if lead.p_value < SIGNIFICANT]
    groups = [list(group) for _, group in groupby(worth, key=lambda lead: lead.pair)]
    groups.sort(key=lambda group: -max(lead.rank for lead in group))
    most = max(1, recipe.phrases // 2)
    return [done for group in groups[:most] for done in _confirm(prober, recipe, group[:2], words)]


def undrawn(leads: Sequence[PhraseLead], done: Sequence[Confirmation]) -> int:
    """Pairs of words that lead to a phrase, and of which no pictures were made."""
    drawn = {c.lead.candidate.text for c in done}
    worth = {lead.pair: lead.modifier for lead in leads if lead.p_value < SIGNIFICANT}
    return sum(not drawn & {f"{m} {pair.head}", f"{m} {pair.target}"} for pair, m in worth.items())


def _confirm(prober: Prober, recipe: Recipe, leads: Sequence[PhraseLead], words: Words) -> list[Confirmation]:
    pair = leads[0].pair
    # A word that the edit acts on as well, or that was edited with it, would be no null.
    pool = [w for w in dict.fromkeys((*words.content, *words.neutral[:200])) if w in leads[0].usual]
    if len(pool) < 2:
        return []
    others = kin(prober, leads[0].modifier, pair.head, pool)
    shown = (pair.head, pair.target, *words.neutral[:PHRASE_NEUTRAL], *_content(words, pair))
    texts = prober.encode([f"a {word}" for word in shown])[0]
    usual = _legible([Drawn.of(prober, recipe, modifier, pair, texts) for modifier in others])
    drawn = [Drawn.of(prober, recipe, lead.modifier, pair, texts[:2]) for lead in leads]
    cold = [word in set(words.neutral) for word in (pair.head, pair.target)]
    both = all(m > MEANING or not c for m, c in zip(_meaning(usual), cold, strict=True))
    return [_judge(lead, own, usual, both) for lead, own in zip(leads, drawn, strict=True)]


def _content(words: Words, pair: Pair) -> tuple[str, ...]:
    """Words that surely show in pictures, from the strongest to the least of the responsive ones."""
    others = [w for w in words.responsive if w not in (pair.head, pair.target)]
    return tuple(others[:: max(1, len(others) // PHRASE_SCALE)][:PHRASE_SCALE])


@dataclass(frozen=True)
class Drawn:
    """Finished latents [P, C, h, w] of a modifier before the head and before the target, from the same noise.

    ``errors`` [2, P, 2 or more]: how badly the head, the target, and of the kin's pictures words of no meaning and of
    content, explain each picture of the head, then of the target.
    """

    head: Tensor
    target: Tensor
    errors: Tensor

    @classmethod
    def of(cls, prober: Prober, recipe: Recipe, modifier: str, pair: Pair, texts: Tensor) -> Drawn:
        """``texts`` [2 or more, L, D]: outputs of the head by itself, of the target, of neutral words, of content."""
        made = [_pictures(prober, recipe, f"{modifier} {word}") for word in (pair.head, pair.target)]
        read = [read_as(prober.model, m, texts, prober.counter, prober.seed) for m in made]
        return cls(made[0], made[1], torch.stack(read))


def _legible(usual: Sequence[Drawn]) -> Sequence[Drawn]:
    """The kin, but for one where that one alone spoils the reading: what it draws by itself may hide either word."""
    leans = torch.stack([(d.errors[:, :, 0] - d.errors[:, :, 1]).mean(1) for d in usual])
    near, far = leans.unbind(1)
    if bool(near.max() < far.min()) or len(usual) < PHRASE_KIN:
        return usual
    least = int((far - near).argmin())
    return [d for i, d in enumerate(usual) if i != least]


@dataclass(frozen=True)
class Astray:
    """Where pictures lie between those of the word that they name (0) and of the other (1); ``null``: where kin do.

    ``readable``: pictures after kin tell the two words apart, one by one and in the mean, not only by chance.
    """

    value: float
    null: tuple[float, ...]
    readable: bool

    @property
    def seen(self) -> bool:
        return self.value > max(HALFWAY, *self.null)


def _astray(own: Drawn, usual: Sequence[Drawn], side: int) -> Astray:
    """Of the pair's word ``side``, how far its pictures are explained by the other one."""
    other = 1 - side

    def shows(drawn: Drawn, word: int) -> Tensor:
        return drawn.errors[word, :, side] - drawn.errors[word, :, other]

    itself, far = (torch.stack([shows(d, word) for d in usual]) for word in (side, other))
    near, means = itself.mean(1).tolist(), far.mean(1).tolist()
    low = median(near)
    way = max(median(means) - low, 1e-12)
    value, *null = ((v - low) / way for v in (float(shows(own, side).mean()), *near))
    # Pictures of a pair have the same noise.
    apart = (far - itself).flatten().double().cpu().numpy()
    chance = float(stats.ttest_1samp(apart, 0.0, alternative="greater").pvalue)
    return Astray(value, tuple(null), max(near) < min(means) and chance < READABLE)


def _telling(usual: Sequence[Drawn]) -> bool:
    """Whether pictures tell the pair apart as words of content are told apart, or ``TELLING`` of it.

    Two words that hardly show are drawn alike after any strong one.
    """
    errors = torch.stack([d.errors for d in usual]).mean((0, 2))
    own = errors.diagonal()
    apart = float(errors[0, 1] + errors[1, 0] - own.sum())
    content = (errors[:, NEUTRAL.stop :] - own[:, None]).sum(0)
    return not len(content) or apart > TELLING * float(content.median())


def _meaning(usual: Sequence[Drawn]) -> tuple[float, ...]:
    """How much each word shows in its own pictures after kin: the share of what tells the two apart by which words of
    no meaning explain them worse. What is drawn by default shows as little."""
    errors = torch.stack([d.errors for d in usual]).mean((0, 2))
    nothing = errors[:, NEUTRAL].mean(1)
    return tuple(
        float((nothing[i] - errors[i, i]) / (errors[i, 1 - i] - errors[i, i]).clamp_min(1e-12)) for i in (0, 1)
    )


def _judge(lead: PhraseLead, own: Drawn, usual: Sequence[Drawn], both: bool = True) -> Confirmation:
    """An edited phrase is drawn as its counterpart: its pictures show that word, not the one that it names.

    Either of the pair may be the one; after the modifier's kin each has to be drawn as itself, or nothing can be read.
    ``both``: neither word is without meaning. Such a word is drawn as whatever stands beside it, edit or not, and
    explains any picture of nothing in particular.
    """
    sides = [_astray(own, usual, side) for side in (0, 1)]
    side = int(sides[1].value > sides[0].value)
    astray = sides[side]
    head, target = (lead.pair.head, lead.pair.target)[:: -1 if side else 1]
    shown = "pictures show the other word (0: its own, 1: the other)"
    found = (
        evidence("words not told apart after it (z, keys and values)", lead.score, 0.0, p=lead.p_value),
        evidence(shown, astray.value, 0.0, min(astray.null), max(astray.null)),
    )
    noted = (found[0], found[1].model_copy(update={"note": f"{lead.modifier} {target}"}))
    candidate = Candidate(f"{lead.modifier} {head}", Slot.PHRASE, source="null-direction")
    whole = Lead(candidate, "null-direction", Component.CROSS_ATTENTION, lead.score, lead.p_value, 0.0, noted)
    readable = both and _telling(usual) and astray.readable
    works = readable and astray.seen and lead.p_value < SIGNIFICANT
    return Confirmation(whole, _score(own, usual, side), works, readable=readable)


def _score(own: Drawn, usual: Sequence[Drawn], side: int) -> PictureScore:
    kin_drawn = torch.stack([(d.head, d.target)[side] for d in usual])
    return score_pictures((own.head, own.target)[side], PictureRecording(kin_drawn), 1)


def _pictures(prober: Prober, recipe: Recipe, phrase: str) -> Tensor:
    """Finished latents [P, C, h, w] of ``phrase`` by itself, from the same noise for every phrase.

    Among other words of content it is not sure to be what is drawn.
    """
    texts = [frame.replace(BLANK, phrase) for frame in PHRASE_FRAMES for _ in range(PHRASE_NOISES)]
    noise = noise_like(prober.model, len(texts), prober.seed * 31 + 7)
    return prober.pictures(texts, noise, steps=recipe.steps, guidance=recipe.guidance)
