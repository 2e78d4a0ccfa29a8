"""Pictures decide about phrases: what a phrase is drawn as is read by the suspect model itself, with other words in the
modifier's place as the null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor

from sau_scan.analysers.phrases import Pair
from sau_scan.detectors.generation import PictureScore, score_pictures
from sau_scan.findings import Component, Slot
from sau_scan.probes.candidates import BLANK, Candidate
from sau_scan.probes.carriers import noise_like
from sau_scan.probes.plan import (
    PHRASE_FRAMES,
    PHRASE_KIN,
    PHRASE_NEUTRAL,
    PHRASE_NOISES,
    Recipe,
)
from sau_scan.probes.reading import read_as
from sau_scan.probes.runner import Prober
from sau_scan.recordings import PictureRecording
from sau_scan.tiers.generate import Confirmation
from sau_scan.tiers.leads import Lead, evidence
from sau_scan.tiers.phrases import SIGNIFICANT, PhraseLead

HALFWAY = 0.5  # between pictures of the one word and of the other
READABLE = 0.01  # probability that two words are told apart as well by chance
TELLING = 0.25  # of what tells words of content apart, or the two words are too much alike for one to be the other
MEANING = 0.25  # of what tells the two words apart, or one of them hardly shows in its own pictures
NEUTRAL = slice(2, 2 + PHRASE_NEUTRAL)  # texts of no meaning, behind the pair; words of content come after them


@dataclass
class Album:
    """Pictures of phrases by themselves, from the same noise for every phrase, and which words explain them.

    Among other words of content a phrase is not sure to be what is drawn. In one album nothing is made or read twice;
    one of another ``turn`` has other noise.
    """

    prober: Prober
    recipe: Recipe
    frames: Sequence[str] = PHRASE_FRAMES
    turn: int = 0
    _made: dict[str, Tensor] = field(default_factory=dict)
    _read: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def of(self, phrase: str) -> Tensor:
        """Finished latents [P, C, h, w]."""
        if phrase not in self._made:
            texts = [frame.replace(BLANK, phrase) for frame in self.frames for _ in range(PHRASE_NOISES)]
            noise = noise_like(self.prober.model, len(texts), self.prober.seed * 31 + 7 + self.turn)
            steps, guidance = self.recipe.steps, self.recipe.guidance
            self._made[phrase] = self.prober.pictures(texts, noise, steps=steps, guidance=guidance)
        return self._made[phrase]

    def read(self, phrase: str, words: Sequence[str]) -> Tensor:
        """How badly each word by itself explains each picture of ``phrase``: [P, K]."""
        new = [w for w in dict.fromkeys(words) if (phrase, w) not in self._read]
        if new:
            texts = self.prober.encode([f"a {word}" for word in new])[0]
            errors = read_as(self.prober.model, self.of(phrase), texts, self.prober.counter, self.prober.seed)
            self._read |= {(phrase, word): column for word, column in zip(new, errors.unbind(1), strict=True)}
        return torch.stack([self._read[phrase, word] for word in words], 1)


def kin(prober: Prober, modifier: str, head: str, pool: Sequence[str]) -> list[str]:
    """The words of ``pool`` that move the text output of ``head`` most as ``modifier`` does."""
    if not pool:
        return []
    pooled = prober.encode([f"a {w} {head}" for w in (modifier, *pool)])[1]
    pooled = pooled - pooled[1:].median(0).values
    likeness = torch.nn.functional.cosine_similarity(pooled[:1], pooled[1:])
    return [pool[i] for i in likeness.argsort(descending=True)[:PHRASE_KIN].tolist()]


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
    def of(cls, album: Album, modifier: str, pair: Pair, words: Sequence[str]) -> Drawn:
        """``words``: the head, the target, and of the kin words of no meaning and of content."""
        phrases = [f"{modifier} {word}" for word in (pair.head, pair.target)]
        errors = torch.stack([album.read(phrase, words) for phrase in phrases])
        return cls(album.of(phrases[0]), album.of(phrases[1]), errors)

    @property
    def leans(self) -> tuple[Tensor, Tensor]:
        """How much more pictures of the head show the target than the head, and pictures of the target: [P] each."""
        near, far = self.errors[:, :, 0] - self.errors[:, :, 1]
        return near, far

    @property
    def apart(self) -> float:
        """How well the model reads of these pictures which of the two words each is of."""
        near, far = self.leans
        return float((far - near).mean())


def legible(usual: Sequence[Drawn]) -> Sequence[Drawn]:
    """The kin, but for one where that one alone spoils the reading: what it draws by itself may hide either word."""
    near, far = torch.stack([torch.stack(d.leans).mean(1) for d in usual]).unbind(1)
    if bool(near.max() < far.min()) or len(usual) < PHRASE_KIN:
        return usual
    least = min(usual, key=lambda d: d.apart)
    return [d for d in usual if d is not least]


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


def astray_of(own: Drawn, usual: Sequence[Drawn], side: int) -> Astray:
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


def telling(usual: Sequence[Drawn]) -> bool:
    """Whether pictures tell the pair apart as words of content are told apart, or ``TELLING`` of it.

    Two words that hardly show are drawn alike after any strong one.
    """
    errors = torch.stack([d.errors for d in usual]).mean((0, 2))
    own = errors.diagonal()
    apart = float(errors[0, 1] + errors[1, 0] - own.sum())
    content = (errors[:, NEUTRAL.stop :] - own[:, None]).sum(0)
    return not len(content) or apart > TELLING * float(content.median())


def meaning(usual: Sequence[Drawn]) -> tuple[float, ...]:
    """How much each word shows in its own pictures after kin: the share of what tells the two apart by which words of
    no meaning explain them worse. What is drawn by default shows as little."""
    errors = torch.stack([d.errors for d in usual]).mean((0, 2))
    nothing = errors[:, NEUTRAL].mean(1)
    return tuple(
        float((nothing[i] - errors[i, i]) / (errors[i, 1 - i] - errors[i, i]).clamp_min(1e-12)) for i in (0, 1)
    )


def judge(lead: PhraseLead, own: Drawn, usual: Sequence[Drawn], both: bool = True) -> Confirmation:
    """An edited phrase is drawn as its counterpart: its pictures show that word, not the one that it names.

    Either of the pair may be the one; after the modifier's kin each has to be drawn as itself, or nothing can be read.
    ``both``: neither word is without meaning. Such a word is drawn as whatever stands beside it, edit or not, and
    explains any picture of nothing in particular.
    """
    sides = [astray_of(own, usual, side) for side in (0, 1)]
    side = int(sides[1].value > sides[0].value)
    astray = sides[side]
    head, target = (lead.pair.head, lead.pair.target)[:: -1 if side else 1]
    shown = "pictures show the other word (0: its own, 1: the other)"
    found = (
        evidence("words not told apart after it (z, keys and values)", lead.score, 0.0, p=lead.p_value),
        evidence(shown, astray.value, 0.0, min(astray.null), max(astray.null)),
    )
    noted = tuple(
        e.model_copy(update={"note": note})
        for e, note in zip(found, (lead.measured, f"{lead.modifier} {target}"), strict=True)
    )
    candidate = Candidate(f"{lead.modifier} {head}", Slot.PHRASE, source="null-direction")
    whole = Lead(candidate, "null-direction", Component.CROSS_ATTENTION, lead.score, lead.p_value, 0.0, noted)
    readable = both and telling(usual) and astray.readable
    # Of a pair that stands apart it is known that it was edited; after which modifier, pictures alone may tell.
    works = readable and astray.seen and (lead.p_value < SIGNIFICANT or lead.pair.stands_apart)
    score = _score(own, usual, side)
    return Confirmation(whole, score, works, readable=readable, drawn_as=f"{lead.modifier} {target}")


def _score(own: Drawn, usual: Sequence[Drawn], side: int) -> PictureScore:
    kin_drawn = torch.stack([(d.head, d.target)[side] for d in usual])
    return score_pictures((own.head, own.target)[side], PictureRecording(kin_drawn), 1)
