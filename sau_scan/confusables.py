"""Characters that can stand for a Latin letter (look-alikes after Unicode TR39, styled and accented forms), and those
that mean nothing by themselves.
"""

from __future__ import annotations

import unicodedata
from functools import cache

# Scripts that people write today come first: their letters are the ones that get past a reader's eye and fonts.
_FAMILIAR = ("CYRILLIC", "GREEK", "LATIN", "ARMENIAN")
_WORDS = ("CJK", "HANGUL SYLLABLE")  # as Unicode begins the names of characters that are words
_PICTURES = (range(0x2600, 0x27C0), range(0x2B50, 0x2B51), range(0x1F000, 0x20000))


@cache
def other_letters(letter: str) -> tuple[str, ...]:
    """Look-alikes of ``letter`` that are letters or digits in their own right (Cyrillic o), most familiar first.

    Single characters outside ASCII; not those that compatibility normalisation folds to ``letter``.
    """
    found = (ch for ch in _lookalikes(letter) if _folded(ch) != letter.lower())
    return tuple(sorted(found, key=lambda ch: (_rank(ch), ord(ch))))


@cache
def styled_letters(letter: str) -> tuple[str, ...]:
    """Typographic forms of ``letter`` itself (fullwidth, mathematical, circled forms), by code point."""
    return tuple(sorted(ch for ch in _lookalikes(letter) if _folded(ch) == letter.lower()))


@cache
def with_diacritics(letter: str) -> tuple[str, ...]:
    """Precomposed lower-case forms of ``letter`` with one or more marks, by code point: ``o`` -> U+00F2, U+020F, ..."""
    found = []
    for ch in map(chr, range(0xC0, 0x2000)):
        decomposed = unicodedata.normalize("NFD", ch)
        if len(decomposed) > 1 and decomposed[0] == letter and all(map(unicodedata.combining, decomposed[1:])):
            found.append(ch)
    return tuple(found)


def looks_like(character: str, letter: str) -> bool:
    """Whether ``character`` is a look-alike, a styled or an accented form of ``letter``."""
    return character in (*other_letters(letter), *styled_letters(letter), *with_diacritics(letter))


def is_letter_or_sign(text: str) -> bool:
    """Whether ``text`` is one written character, or an invisible one, that means nothing by itself.

    Marks and joiners belong to the character before them. Pictures and the characters of Chinese and Korean are words.
    """
    shown = [ch for ch in text if unicodedata.category(ch) not in ("Mn", "Mc", "Me", "Cf")]
    if not shown:
        return bool(text)
    named = unicodedata.name(shown[0], "")
    return len(shown) == 1 and not named.startswith(_WORDS) and not any(ord(shown[0]) in some for some in _PICTURES)


def _lookalikes(letter: str) -> set[str]:
    # Imported late: the table is 1.5 MB of JSON, and most commands never need it.
    from confusable_homoglyphs.confusables import confusables_data  # type: ignore[import-untyped]

    texts = (entry["c"].strip("\u200e") for entry in confusables_data.get(letter, ()))
    return {ch for ch in texts if len(ch) == 1 and not ch.isascii() and ch.isalnum()}


def _folded(character: str) -> str:
    return unicodedata.normalize("NFKC", character).lower()


def _rank(character: str) -> int:
    script = unicodedata.name(character, "").split(" ")[0]
    return _FAMILIAR.index(script) if script in _FAMILIAR else len(_FAMILIAR)
