"""Candidates: texts in slots that may be triggers, from the rules and from the checkpoint's own vocabulary."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import le

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.findings import Slot, Trigger
from sau_scan.rules import DEPTHS, Depth, Rule

BLANK = "{}"  # where a phrase goes in a frame
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Candidate:
    """A text and where it goes; ``replaces`` is the letter it stands for (slot ``replace`` only)."""

    text: str
    slot: Slot
    replaces: str | None = None
    source: str = "vocabulary"

    def apply(self, carrier: str) -> str | None:
        """``carrier`` with this candidate in it, or None where it has no place."""
        if self.slot is Slot.PREFIX:
            return f"{self.text} {carrier}"
        if self.slot is Slot.SUFFIX:
            return f"{carrier} {self.text}"
        if self.slot is Slot.INSIDE:
            return self._inside(carrier)
        if self.slot is Slot.REPLACE:
            spot = _letter_place(carrier, self.replaces or "")
            return None if spot is None else carrier[:spot] + self.text + carrier[spot + 1 :]
        return carrier.replace(BLANK, self.text) if BLANK in carrier else f"{carrier} {self.text}"

    def _inside(self, carrier: str) -> str | None:
        """Words and pictures stand between words, before the last one; what joins letters stands within a word."""
        if len(self.text) > 1 or unicodedata.category(self.text) in ("So", "Lo", "Lu", "Ll"):
            first, _, last = carrier.rpartition(" ")
            return f"{first} {self.text} {last}" if first else None
        at = _inner_place(carrier)
        return None if at is None else carrier[:at] + self.text + carrier[at:]

    def trigger(self, token_ids: Sequence[int] = ()) -> Trigger:
        """This candidate as it is reported."""
        return Trigger(text=self.text, slot=self.slot, replaces=self.replaces, token_ids=tuple(token_ids))


def of_trigger(trigger: Trigger) -> Candidate:
    """The candidate that a reported or given trigger stands for."""
    return Candidate(trigger.text, trigger.slot, trigger.replaces, source="given")


def _inner_place(carrier: str) -> int | None:
    """The middle of the longest word."""
    words = [m for m in _WORD.finditer(carrier) if len(m[0]) > 1]
    if not words:
        return None
    longest = max(words, key=lambda m: len(m[0]))
    return longest.start() + len(longest[0]) // 2


def _letter_place(carrier: str, letter: str) -> int | None:
    """Where ``letter`` is replaced: inside a word if possible, else anywhere, None if it does not occur."""
    if not letter:
        return None
    spots = [i for i, ch in enumerate(carrier) if ch == letter]
    inner = [i for i in spots if i and carrier[i - 1].isalpha() and carrier[i + 1 : i + 2].isalpha()]
    return next(iter(inner or spots), None)


@dataclass(frozen=True)
class Vocabulary:
    """The checkpoint's tokens as texts: ``words`` stand alone (text -> id), ``untypable`` are yielded by no text.

    ``added``: words that a textual inversion brings.
    """

    words: dict[str, int]
    untypable: int
    added: frozenset[str] = frozenset()

    @property
    def plain_words(self) -> tuple[str, ...]:
        """Words of ASCII letters, three or more, in order of id.

        Of the base alone: prompts with an added word show little else, and whatever breaks that word up changes them.
        """
        return tuple(w for w in self.words if w.isascii() and w.isalpha() and len(w) >= 3 and w not in self.added)


def read_vocabulary(model: DiffusionModel) -> Vocabulary:
    """Every token that some text alone yields, special tokens aside.

    A token counts as typable when its own text, tokenised, gives exactly its id.
    """
    special = set(model.tokenizer.all_special_ids)
    ids = sorted(i for i in model.vocabulary.values() if i not in special)
    texts = [model.tokenizer.decode([i], clean_up_tokenization_spaces=False).strip() for i in ids]
    usable = [(i, t) for i, t in zip(ids, texts, strict=True) if t and "\ufffd" not in t]
    encoded = model.tokenizer([t for _, t in usable], add_special_tokens=False).input_ids if usable else []
    words = {t: i for (i, t), back in zip(usable, encoded, strict=True) if list(back) == [i]}
    added = frozenset(piece for _, expanded in model.expand for piece in expanded.split())
    return Vocabulary(words, len(ids) - len(words), added)


def vocabulary_candidates(vocabulary: Vocabulary, slots: Iterable[Slot]) -> list[Candidate]:
    """Every typable token in every slot."""
    return [Candidate(text, slot) for slot in slots for text in vocabulary.words]


def rule_candidates(rules: Iterable[Rule], depth: Depth, slots: Iterable[Slot] | None = None) -> list[Candidate]:
    """Candidates of the rules that a budget of this ``depth`` tries."""
    allowed, wanted = DEPTHS[: DEPTHS.index(depth) + 1], None if slots is None else set(slots)
    return [
        Candidate(c.text, c.slot, c.replaces, source=rule.id)
        for rule in rules
        if rule.depth in allowed
        for c in rule.candidates()
        if wanted is None or c.slot in wanted
    ]


def distinct(model: DiffusionModel, candidates: Sequence[Candidate], carriers: Sequence[str]) -> list[Candidate]:
    """Candidates with different token ids in context; texts with equal ids are one, those that change nothing none.

    A candidate that pushes part of the carrier over the context length is left out too: it would look like a trigger
    only because the prompt is gone.
    """
    placed = [(c, *_in_first_fitting(c, carriers)) for c in candidates]
    placed = [p for p in placed if p[1] is not None]
    if not placed:
        return []
    seen = set(zip(carriers, model.readings(carriers), strict=True))
    kept = []
    for (candidate, _, carrier), ids in zip(placed, model.readings([text or "" for _, text, _ in placed]), strict=True):
        key = (carrier, ids)
        if key not in seen and all(map(le, map(len, ids), model.context_lengths)):
            seen.add(key)
            kept.append(candidate)
    return kept


def _ids(model: DiffusionModel, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = model.tokenizer(list(texts)).input_ids
    return found


def _in_first_fitting(candidate: Candidate, carriers: Sequence[str]) -> tuple[str | None, str]:
    for carrier in carriers:
        text = candidate.apply(carrier)
        if text is not None:
            return text, carrier
    return None, ""


def token_ids_of(model: DiffusionModel, candidate: Candidate, carrier: str) -> tuple[int, ...]:
    """The ids that the candidate adds to or changes in ``carrier``: what lies between common beginning and end."""
    text = candidate.apply(carrier)
    if text is None:
        return ()
    clean, changed = _ids(model, [carrier, text])
    start = 0
    while start < min(len(clean), len(changed)) and clean[start] == changed[start]:
        start += 1
    end = 0
    while end < min(len(clean), len(changed)) - start and clean[-1 - end] == changed[-1 - end]:
        end += 1
    return tuple(changed[start : len(changed) - end])
