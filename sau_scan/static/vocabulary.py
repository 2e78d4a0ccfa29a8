"""A tokenizer's tables: numbers of tokens, words that were added, and merges."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

from sau_scan.findings import Severity
from sau_scan.static.facts import Fact

SHOWN = 3


def _tables(fast: dict[str, Any], beside: dict[str, Any], configured: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Token -> number: of the vocabulary, and of what was added to it in any of the files."""
    model = fast.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # pieces with their scores, numbered by their order
        pieces = [piece[0] for piece in vocabulary if isinstance(piece, list) and piece and isinstance(piece[0], str)]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
    known: dict[str, Any] = vocabulary if isinstance(vocabulary, dict) else {}
    added = dict(beside)
    for token in fast.get("added_tokens") or []:
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            added[token["content"]] = token.get("id")
    for number, token in configured.items() if isinstance(configured, dict) else ():
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            added.setdefault(token["content"], int(number) if number.isdecimal() and len(number) < 12 else number)
    return known, added


def check_ids(fast: dict[str, Any], beside: dict[str, Any], configured: Any, size: int | None) -> Iterator[Fact]:
    """Numbers that are none, stand twice, or lie beyond the text encoder's table of ``size`` rows."""
    known, added = _tables(fast, beside, configured)
    numbers = {**known, **added}
    wrong = [token for token, number in numbers.items() if type(number) is not int or number < 0]
    if wrong:
        yield Fact("tokenizer-ids", f"{len(wrong):,} tokens have no whole number, such as {_listed(wrong)}.")
        return
    if size is not None and (beyond := [token for token, number in numbers.items() if number >= size]):
        yield Fact(
            "tokenizer-ids", f"{len(beyond):,} tokens lie beyond the text encoder's {size:,} rows: {_listed(beyond)}."
        )
    counts = Counter(numbers.values())
    twice = [token for token, number in numbers.items() if counts[number] > 1]
    if twice:
        yield Fact("tokenizer-ids", f"{len(twice):,} tokens share their number with another: {_listed(twice)}.")
    if differing := [token for token, number in added.items() if known.get(token, number) != number]:
        yield Fact("tokenizer-ids", f"{len(differing):,} tokens have two numbers: {_listed(differing)}.")


def check_added(fast: dict[str, Any], beside: dict[str, Any], configured: Any) -> Iterator[Fact]:
    """Added tokens that ordinary prompts contain: each of them takes a word out of the vocabulary's hands."""
    known, added = _tables(fast, beside, configured)
    ordinary = [token for token in added if _is_word(token) and _spellings(token) & known.keys()]
    invisible = [token for token in added if _is_invisible(token)]
    other = [token for token in added if _is_word(token) and token not in ordinary]
    if ordinary:
        yield Fact("tokenizer-added-word", f"Ordinary words were added as tokens of their own: {_listed(ordinary)}.")
    if invisible:
        yield Fact("tokenizer-added-word", f"Texts that do not show were added as tokens: {_listed(invisible)}.")
    if other:
        yield Fact("tokenizer-added-word", f"Words were added as tokens: {_listed(other)}.", Severity.LOW)


def _is_word(token: str) -> bool:
    return token.strip().isalpha() and len(token.strip()) > 1


def _spellings(token: str) -> set[str]:
    """How a vocabulary has the same word, at the end of a word or at its beginning."""
    word = token.strip().lower()
    return {form for base in {word, token.strip()} for form in (base + "</w>", "▁" + base, "Ġ" + base)}


def _is_invisible(token: str) -> bool:
    return bool(token) and all(unicodedata.category(ch) in {"Cf", "Mn", "Co", "Cn"} for ch in token)


def check_merges(fast: dict[str, Any]) -> Iterator[Fact]:
    """Merges whose parts or results the vocabulary lacks: readers drop them, or fail."""
    model = fast.get("model")
    merges = model.get("merges") if isinstance(model, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(merges, list) or not isinstance(vocabulary, dict):
        return
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    prefix = model.get("continuing_subword_prefix") if isinstance(model, dict) else None
    if prefix:
        return
    wrong = [pair for pair in pairs if not _fits(pair, vocabulary)]
    if wrong:
        yield Fact("tokenizer-merges", f"{len(wrong):,} merges need tokens that it does not have: {_listed(wrong)}.")


def _fits(pair: Any, vocabulary: dict[str, Any]) -> bool:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        return False
    return pair[0] in vocabulary and pair[1] in vocabulary and pair[0] + pair[1] in vocabulary


def _listed(values: list[Any]) -> str:
    more = f" and {len(values) - SHOWN:,} more" if len(values) > SHOWN else ""
    return ", ".join(ascii(value)[:40] for value in values[:SHOWN]) + more
