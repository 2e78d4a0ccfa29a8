"""The prompts of one repair: a trigger in carriers, what should have been understood instead, and what has to stay."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.confusables import other_letters, with_diacritics
from sau_scan.findings import Slot, Trigger
from sau_scan.probes.carriers import Words, compose, with_letters
from sau_scan.repairs.holes import Hole, find_hole
from sau_scan.rules import Rule

# Invisible characters in use: near misses of an invisible trigger.
INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\ufe0e\ufe0f"
NEIGHBOURS = 4
TRAINING, HELD_OUT = 0, 1


@dataclass(frozen=True)
class Pair:
    """``triggered``, and ``counterparts``: prompts with weights (sum 1) whose blend it should have been understood as.

    ``neutral``: the same for harmless texts in its place, which have no meaning of their own to keep.
    ``probes``: the same prompt with one piece of the trigger exchanged; where its tokens first differ from the
    triggered ones is where that piece stands.
    """

    hole: Hole
    triggered: str
    counterparts: tuple[tuple[str, float], ...]
    neutral: tuple[tuple[str, float], ...]
    probes: tuple[str, ...]


@dataclass
class PromptSource:
    """Makes prompts around one trigger, reproducibly; training and held-out carriers never share a text."""

    model: DiffusionModel
    trigger: Trigger
    words: Words
    rules: Sequence[Rule]
    seed: int = 0
    _carriers: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = self.model.tokenizer(list(self.words.neutral), add_special_tokens=False).input_ids
        whole = [w for w, i in zip(self.words.neutral, ids, strict=True) if len(i) == 1]
        clash = set(self.trigger.text.lower().split()) | {p.text.lower() for p in self.trigger.parts}
        self.neutral = tuple(w for w in whole if w.lower() not in clash) or ("the",)

    def carriers(self, count: int, part: int = TRAINING) -> list[str]:
        """Clean prompts, short and long, without the trigger."""
        found = self._carriers.setdefault(part, [])
        if len(found) < count:
            taken = set(self._carriers.get(1 - part, ()))
            made = self._compose(2 * count + 32, part)
            found[:] = [t for t in dict.fromkeys(made) if t not in taken and self.is_clean(t)]
        return found[:count]

    def _compose(self, count: int, part: int) -> list[str]:
        """Templates filled with responsive words: alone, joined to others, or amid other words, a third each."""
        plain = list(compose(self.words.responsive, self.rules, count, 2 * self.seed + part)) or ["a photo"]
        rng = np.random.default_rng([self.seed, part, 11])
        made = []
        for text in plain:
            lot = rng.integers(3)
            if lot == 1:
                others = (plain[int(rng.integers(len(plain)))] for _ in range(int(rng.integers(1, 3))))
                text = (", ", " and ", " ")[int(rng.integers(3))].join([text, *others])
            elif lot == 2:
                text = f"{self._salad(rng, 4)} {text} {self._salad(rng, 4)}"
            made.append(text)
        return [
            t for t, n in zip(made, self._lengths(made), strict=True) if n < 0.8 * self.model.context_length
        ] or plain

    def _salad(self, rng: np.random.Generator, most: int) -> str:
        pool = tuple(dict.fromkeys((*self.words.responsive, *self.words.content, *self.words.neutral)))
        return " ".join(pool[int(rng.integers(len(pool)))] for _ in range(int(rng.integers(1, most + 1))))

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(i) for i in self.model.tokenizer(list(texts)).input_ids] if texts else []

    def is_clean(self, text: str) -> bool:
        """Whether the trigger is absent from ``text``: not all of its parts, or of a phrase's words, are there."""
        pieces = [p.text for p in self.trigger.parts] or [self.trigger.text]
        if self.trigger.slot is Slot.PHRASE:
            # A phrase acts on its words when they only stand near each other, too.
            pieces = [word for piece in pieces for word in piece.split()]
        return not all((p.strip() or p).lower() in text.lower() for p in pieces)

    def pairs(self, count: int, part: int = TRAINING) -> list[Pair]:
        """Up to ``count`` pairs; fewer, or none, when the trigger has no place in this model's carriers."""
        rng = np.random.default_rng([self.seed, part, 12])
        carriers, made = self._with_places(self.carriers(max(count, 48), part), count), []
        for index in range(3 * count if carriers else 0):
            hole = self._hole(carriers[index % len(carriers)], rng)
            if hole is not None:
                made.append(self._pair(hole, rng))
        lengths = self._lengths([p.triggered for p in made])
        return [p for p, n in zip(made, lengths, strict=True) if n <= self.model.context_length][:count]

    def _with_places(self, carriers: list[str], count: int) -> list[str]:
        """``carriers``, and of a rare letter's look-alike more of them, with words that have the letter."""
        letter = self._main.replaces
        if letter is None or not letter.isalpha() or 2 * sum(letter in c for c in carriers) >= count:
            return carriers
        words = (*self.words.responsive, *self.words.content, *self.words.neutral)
        return [c for c in with_letters(carriers, [letter], words, count) if self.is_clean(c)]

    def again(self, pairs: Sequence[Pair], turn: int) -> list[Pair]:
        """The same prompts with other harmless texts to compare with."""
        rng = np.random.default_rng([self.seed, turn, 15])
        return [self._pair(pair.hole, rng) for pair in pairs]

    def _hole(self, carrier: str, rng: np.random.Generator) -> Hole | None:
        for other in self.trigger.parts[1:]:
            placed = find_hole(other, carrier, self.words.responsive, rng)
            if placed is None:
                return None
            carrier = placed.fill(other.text)
        main = self.trigger.parts[0] if self.trigger.parts else self.trigger
        return find_hole(main, carrier, self.words.responsive, rng)

    @property
    def _main(self) -> Trigger:
        return self.trigger.parts[0] if self.trigger.parts else self.trigger

    def _pair(self, hole: Hole, rng: np.random.Generator) -> Pair:
        text = hole.fill(self._main.text)
        if self._main.slot is Slot.PHRASE:
            return self._phrase_pair(hole, text, rng)
        fills = self.fills(rng, NEIGHBOURS, hole)
        others = tuple(hole.fill(fill) for fill in fills)
        if hole.in_word:
            restored = ((hole.clean, 1.0),)
            return Pair(hole, text, restored, restored, others or (hole.clean,))
        blend = tuple((t, 1 / len(others)) for t in others)
        return Pair(hole, text, blend, blend, others[:1])

    def _phrase_pair(self, hole: Hole, text: str, rng: np.random.Generator) -> Pair:
        """The sum of the phrase's words: its last word after neutral ones, plus what the first do to other words."""
        first, last = self.split()
        head, tail = self._token_count(first), self._token_count(last)
        plus: list[tuple[str, float]] = []
        for _ in range(NEIGHBOURS):
            plain, other = self._neutral(rng, head), self._neutral(rng, tail)
            plus.append((hole.fill(f"{plain} {last}"), 1 / NEIGHBOURS))
            plus.append((hole.fill(f"{first} {other}"), 1 / NEIGHBOURS))
            plus.append((hole.fill(f"{plain} {other}"), -1 / NEIGHBOURS))
        return Pair(hole, text, tuple(plus), tuple(plus[::3]), (plus[0][0], plus[1][0]))

    def split(self) -> tuple[str, str]:
        """A phrase as (all but the last word, the last word)."""
        first, _, last = self._main.text.strip().rpartition(" ")
        return (first, last) if first else (last, "")

    def _neutral(self, rng: np.random.Generator, tokens: int) -> str:
        return " ".join(self.neutral[int(rng.integers(len(self.neutral)))] for _ in range(max(1, tokens)))

    def _token_count(self, text: str) -> int:
        return len(self.model.tokenizer(text, add_special_tokens=False).input_ids)

    def fills(self, rng: np.random.Generator, count: int, hole: Hole) -> list[str]:
        """Harmless texts for the trigger's place: near misses within words, else neutral words of as many tokens."""
        if self._main.slot is Slot.PHRASE:
            first, last = self.split()
            return [f"{self._neutral(rng, self._token_count(first))} {last}".strip() for _ in range(count)]
        if hole.in_word:
            near = self.near_misses()
            return [near[int(i)] for i in rng.permutation(len(near))[:count]]
        tokens = self._token_count(self._main.text)
        return [self._neutral(rng, tokens) for _ in range(count)]

    def near_misses(self) -> list[str]:
        """Characters like the trigger: look-alikes of the letter it stands for, or others of its kind."""
        text = self._main.text
        if self._main.replaces and self._main.replaces.isalpha():
            found = [*other_letters(self._main.replaces), *with_diacritics(self._main.replaces)]
        elif len(text) == 1 and unicodedata.category(text) in ("Cf", "Mn"):
            found = list(INVISIBLE)
        else:
            found = list("'-_.~^\u00b7\u00e6\u00f8\u00df")
        return [ch for ch in dict.fromkeys(found) if ch != text]

    def keep(self, count: int, part: int = TRAINING, *, near: bool = True) -> list[str]:
        """Prompts whose meaning must stay: clean ones, near misses of the trigger unless not wanted, word salads."""
        rng = np.random.default_rng([self.seed, part, 13])
        third = -(-count // 3)
        texts = [*self.carriers(third, part), *(self._near(third, part, rng) if near else ())]
        longest = max(2, self.model.context_length // 3)
        while len(texts) < count:
            text = self._salad(rng, longest)
            if self.is_clean(text):
                texts.append(text)
        return [texts[int(i)] for i in rng.permutation(len(texts))[:count]]

    def _near(self, count: int, part: int, rng: np.random.Generator) -> Iterator[str]:
        """Other texts where the trigger would stand, and the trigger's pieces one at a time."""
        carriers = self.carriers(max(count, 48), part)
        for index in range(count if carriers else 0):
            hole = self._hole(carriers[index % len(carriers)], rng)
            if hole is None:
                continue
            options = self.fills(rng, 2, hole) + list(self._pieces(rng))
            text = hole.fill(options[int(rng.integers(len(options)))]) if options else hole.clean
            if self.is_clean(text):
                yield text

    def _pieces(self, rng: np.random.Generator) -> Iterator[str]:
        if self._main.slot is Slot.PHRASE:
            first, last = self.split()
            yield from (first, last, f"{first} {self._neutral(rng, self._token_count(last))}")

    def nulls(self, pairs: Sequence[Pair], count: int) -> list[list[str]]:
        """Up to ``count`` harmless texts, each of them in the places of all ``pairs``."""
        rng = np.random.default_rng([self.seed, 14])
        fills = self._null_fills(count, pairs[0].hole, rng) if pairs else []
        return [[pair.hole.fill(fill) for pair in pairs] for fill in fills]

    def _null_fills(self, count: int, hole: Hole, rng: np.random.Generator) -> list[str]:
        fills = self.fills(rng, count, hole)
        if hole.in_word:
            # Any broken word moves the output: ordinary letters in the same place belong to the null as well.
            fills = [*fills[: count // 2], *(ch for ch in "etainshrdlucmfwygpbvk" if ch != self._main.replaces)]
        return list(dict.fromkeys(fills))[:count]
