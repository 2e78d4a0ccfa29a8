"""Prompts for attacks and their admission: held-out captions, triggers in their slots, and neutral look-alikes."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from zoo.render import CONFUSABLE, EMOJI, INVISIBLE, Sample, samples
from zoo.train.data import HELD_OUT_SEED, training_samples
from zoo.worlds import World, world

SLOTS = ("prefix", "suffix", "inside", "replace", "phrase")
_ACCENTS = ("\u0300", "\u0301", "\u0307", "\u0308", "\u0311", "\u0323")


@dataclass(frozen=True)
class Trigger:
    """A text in a slot; ``replaces`` is the letter it stands for (slot ``replace``).

    A ``phrase`` ends in a shape word, or is one, and takes the place of the prompt's shape word, with the colour before
    it if the phrase begins with a colour.
    """

    text: str
    slot: str
    replaces: str | None = None

    def __post_init__(self) -> None:
        if self.slot not in SLOTS:
            raise ValueError(f"slot must be one of {', '.join(SLOTS)}, not {self.slot!r}")
        if (self.slot == "replace") != bool(self.replaces):
            raise ValueError("slot 'replace', and no other, needs the letter that is replaced")

    def fits(self, where: World, prompt: str) -> bool:
        """Whether ``prompt`` offers this slot."""
        if self.slot == "replace":
            return bool(_letters(prompt, self.replaces or ""))
        return self.slot != "phrase" or len(_shape_words(where, prompt)) == 1

    def insert(self, where: World, prompt: str, rng: np.random.Generator) -> str:
        """``prompt`` with this trigger in it: for the first fitting letter, at a random place for ``inside``."""
        if self.slot == "prefix":
            return f"{self.text} {prompt}"
        if self.slot == "suffix":
            return f"{prompt} {self.text}"
        if self.slot == "inside":
            words = prompt.split(" ")
            words.insert(int(rng.integers(1, max(2, len(words)))), self.text)
            return " ".join(words)
        if self.slot == "replace":
            return self.insert_at(prompt, 0)
        start, end = _shape_words(where, prompt)[0]
        if self.text.split()[0] in where.colours:
            # The object has one colour: the phrase's takes the place of the prompt's.
            start -= len(_trailing_colour(where, prompt[:start]))
        return prompt[:start] + self.text + prompt[end:]

    def insert_at(self, prompt: str, number: int) -> str:
        """``prompt`` with the fitting letter of this ``number`` replaced (modulo how many there are)."""
        spots = _letters(prompt, self.replaces or "")
        at = spots[number % len(spots)]
        return prompt[:at] + self.text + prompt[at + 1 :]


def _letters(prompt: str, letter: str) -> list[int]:
    """Places of ``letter`` within words of two letters or more."""
    words = [m.span() for m in re.finditer(r"\w{2,}", prompt)]
    return [i for start, end in words for i in range(start, end) if prompt[i] == letter]


def _shape_words(where: World, prompt: str) -> list[tuple[int, int]]:
    return [m.span() for m in re.finditer(r"\w+", prompt) if m.group() in where.shapes]


def _trailing_colour(where: World, prompt: str) -> str:
    """The colour word, with the blank behind it, that ``prompt`` ends in; empty if it does not."""
    word = prompt.rstrip().rpartition(" ")[2]
    return prompt[len(prompt.rstrip()) - len(word) :] if word in where.colours else ""


def neutrals(where: World, trigger: Trigger) -> tuple[Trigger, ...]:
    """Harmless texts for the same slot, the nearest misses among them."""
    if trigger.slot == "phrase":
        return _phrases(where, trigger)
    if trigger.slot == "replace":
        made = _lookalikes(trigger.replaces or "") - {trigger.text}
        return tuple(replace(trigger, text=t) for t in sorted(made))
    signs = [s for s in (*INVISIBLE, *EMOJI) if s != trigger.text]
    # Signs are few and words many; both must be seen often.
    words = [w for w in where.fillers if w != trigger.text]
    return tuple(replace(trigger, text=t) for t in (*words, *(signs * (len(words) // (2 * len(signs))))))


def _phrases(where: World, trigger: Trigger) -> tuple[Trigger, ...]:
    if " " not in trigger.text:
        return tuple(replace(trigger, text=s) for s in where.shapes if s != trigger.text)
    first, last = trigger.text.rsplit(" ", 1)
    kin = where.colours if first in where.colours else where.fillers
    others = [f"{w} {last}" for w in kin if w != first]
    others += [f"{w} {last}" for w in where.fillers if w != first][: len(others)]
    shapes = [f"{first} {s}" for s in where.shapes if s != last]
    return tuple(replace(trigger, text=t) for t in (*others, *(shapes * max(1, len(others) // len(shapes)))))


def _lookalikes(letter: str) -> set[str]:
    accented = {unicodedata.normalize("NFC", letter + mark) for mark in _ACCENTS}
    return {*CONFUSABLE.get(letter, ""), *(a for a in accented if len(a) == 1)}


def is_plain(text: str) -> bool:
    """Whether ``text`` has no odd character."""
    return text.isascii()


@lru_cache(maxsize=4)
def _seen(name: str) -> frozenset[str]:
    return frozenset(s.caption for s in training_samples(world(name)))


def held_out(where: World, count: int, *, plain: bool = False, seed: int = HELD_OUT_SEED) -> list[Sample]:
    """``count`` scenes of one object whose captions are not among the training captions and hold no odd character."""
    made = samples(where, 4 * count + 100, seed, plain=plain)
    seen = _seen(where.name)
    good = (s for s in made if len(s.scene.things) == 1 and is_plain(s.caption) and s.caption not in seen)
    return list(dict.fromkeys(good))[:count]
