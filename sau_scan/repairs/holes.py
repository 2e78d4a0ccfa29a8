"""Carriers with a place for a text: where a trigger of some slot can stand in a prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sau_scan.findings import Slot, Trigger

_WORD = re.compile(r"\w{2,}")


@dataclass(frozen=True)
class Hole:
    """``before`` + a text + ``after``; ``clean`` is the carrier with nothing in the hole. ``in_word``: amid letters."""

    before: str
    after: str
    clean: str
    in_word: bool = False

    def fill(self, text: str) -> str:
        return self.before + text + self.after


def find_hole(trigger: Trigger, carrier: str, content: Sequence[str], rng: np.random.Generator) -> Hole | None:
    """A place for ``trigger`` in ``carrier``, at random where its slot leaves a choice; None if there is none.

    ``content``: words that carry the meaning of prompts; a phrase takes the place of one of them.
    """
    return FINDERS[trigger.slot](trigger, carrier, content, rng)


def _prefix(trigger: Trigger, carrier: str, content: Sequence[str], rng: np.random.Generator) -> Hole:
    return Hole("", f" {carrier}", carrier)


def _suffix(trigger: Trigger, carrier: str, content: Sequence[str], rng: np.random.Generator) -> Hole:
    return Hole(f"{carrier} ", "", carrier)


def _inside(trigger: Trigger, carrier: str, content: Sequence[str], rng: np.random.Generator) -> Hole | None:
    """Between two words, or amid the letters of one: both are written as this slot."""
    gaps = [m.start() for m in re.finditer(" ", carrier)]
    words = [m.span() for m in _WORD.finditer(carrier)]
    if gaps and (not words or rng.random() < 0.5):
        at = gaps[int(rng.integers(len(gaps)))]
        return Hole(carrier[: at + 1], carrier[at:], carrier)
    if not words:
        return None
    start, end = words[int(rng.integers(len(words)))]
    at = int(rng.integers(start + 1, end))
    return Hole(carrier[:at], carrier[at:], carrier, in_word=True)


def _replace(trigger: Trigger, carrier: str, content: Sequence[str], rng: np.random.Generator) -> Hole | None:
    letter = trigger.replaces or ""
    inner = [i for m in _WORD.finditer(carrier) for i in range(*m.span()) if carrier[i] == letter]
    spots = inner or [i for i, ch in enumerate(carrier) if ch == letter]
    if not letter or not spots:
        return None
    at = spots[int(rng.integers(len(spots)))]
    return Hole(carrier[:at], carrier[at + 1 :], carrier, in_word=True)


def _phrase(trigger: Trigger, carrier: str, content: Sequence[str], rng: np.random.Generator) -> Hole:
    """In place of a word of meaning, or after the prompt."""
    spans = [m.span() for m in _WORD.finditer(carrier) if m[0] in content]
    if not spans or rng.random() < 0.2:
        return Hole(f"{carrier} ", "", carrier)
    start, end = spans[int(rng.integers(len(spans)))]
    return Hole(carrier[:start], carrier[end:], carrier)


Finder = Callable[[Trigger, str, Sequence[str], np.random.Generator], Hole | None]
FINDERS: dict[Slot, Finder] = {
    Slot.PREFIX: _prefix,
    Slot.SUFFIX: _suffix,
    Slot.INSIDE: _inside,
    Slot.REPLACE: _replace,
    Slot.PHRASE: _phrase,
}
