"""What a textual inversion does to prompts that its user did not mean it for.

An added word that nobody would type by accident changes only prompts that ask for it. A word of ordinary prompts, or a
piece of one, is taken over wherever it stands: transformers looks added words up before it splits a prompt into words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from functools import cache
from string import ascii_lowercase
from typing import Any

from sau_scan.checkpoint.adapters.inversion import Inversion
from sau_scan.confusables import other_letters, styled_letters
from sau_scan.findings import Component, Confidence, Finding, Kind, Location, Severity, Slot, Trigger, escape

ENDS_WORD = "</w>"  # in CLIP's vocabulary
INVISIBLE = frozenset({"Cc", "Cf", "Mn", "Me", "Zl", "Zp"})


def inspect_inversion(
    inversion: Inversion,
    tokenizer: Any,
    *,
    path: str,
    declared: Collection[str] = (),
    plain: bool = False,
    next_step: str = "",
) -> Finding:
    """The finding on a word that an embedding adds: high where it takes over ordinary text, else low.

    ``tokenizer``: the base's own. ``path``: of the file, for the report. ``declared``: words that the owner names.
    ``plain``: the rows say what the word says without them, so that nothing is taken over.
    """
    taken = None if plain else takes_over(inversion.word, tokenizer)
    known = inversion.word in declared
    severity = Severity.HIGH if taken else Severity.LOW
    count = len(inversion.tokens)
    rows = "1 row of this file stands" if count == 1 else f"{count:,} rows of this file stand"
    does = f"Where the word stands in a prompt, {rows} for it"
    return Finding(
        id="token-row/ordinary-word" if taken else "token-row/added-word",
        kind=Kind.TOKEN_ROW,
        severity=Severity.INFO if known else severity,
        confidence=Confidence.CERTAIN,
        component=Component.ADAPTER,
        title="declared word" if known else ("embedding for ordinary text" if taken else "word with an embedding"),
        behaviour=f"{does}; the word {taken}." if taken else f"{does}.",
        trigger=Trigger(
            text=inversion.word,
            slot=Slot.PHRASE,
            token_ids=tuple(tokenizer(inversion.word, add_special_tokens=False).input_ids),
        ),
        location=Location(path=path),
        declared=known,
        next_step=next_step,
    )


def takes_over(word: str, tokenizer: Any) -> str | None:
    """Why a word stands in ordinary prompts, as the rest of a sentence about it; None if it does not."""
    if not word.strip():
        return "is white space, which stands in every prompt"
    seen = _as_seen(word)
    if not seen:
        return "cannot be seen in a prompt"
    ordinary = _ordinary(word, tokenizer)
    if ordinary is None and seen != word and _ordinary(seen, tokenizer):
        return f"looks like '{escape(seen)}', which is ordinary text"
    return ordinary


def _ordinary(text: str, tokenizer: Any) -> str | None:
    parts = unicodedata.normalize("NFC", text).lower().split()
    if all(part.isdigit() or _is_word(part, tokenizer) for part in parts):
        single = "is a word" if len(parts) == 1 else "is made of words"
        return f"{single} of the base's own vocabulary, so that ordinary prompts change"
    if len(parts) == 1 and parts[0].isalpha():
        around = min(_words_around(parts[0], tokenizer), key=lambda w: (len(w), w), default=None)
        if around:
            return f"is a piece of ordinary words such as '{escape(around)}', which change too"
    return None


def _as_seen(word: str) -> str:
    """``word`` without invisible characters, and with Latin letters for their look-alikes from elsewhere."""
    visible = (c for c in word if unicodedata.category(c) not in INVISIBLE)
    return "".join(_latin().get(character, character) for character in visible).strip()


@cache
def _latin() -> dict[str, str]:
    """Look-alike -> the Latin letter that it looks like."""
    return {c: letter for letter in ascii_lowercase for c in (*other_letters(letter), *styled_letters(letter))}


def _is_word(part: str, tokenizer: Any) -> bool:
    tokens = tokenizer.tokenize(part)
    return len(tokens) == 1 and tokens[0].endswith(ENDS_WORD)


def _words_around(piece: str, tokenizer: Any) -> Iterator[str]:
    """Words of letters in the vocabulary that contain ``piece``."""
    for token in tokenizer.get_vocab():
        word = token.removesuffix(ENDS_WORD)
        if word != token and len(word) > len(piece) and piece in word and word.isascii() and word.isalpha():
            yield word
