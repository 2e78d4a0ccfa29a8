"""Which texts are one letter or sign without a meaning of its own."""

from __future__ import annotations

import pytest

from sau_scan.confusables import is_letter_or_sign

SIGNS = ["o", "\u043e", "\u200b", "o\u0308", "\u200d\u2060", "7", "%", "\u05d0", "\u2800", "\u25cf", "\u00a9"]


@pytest.mark.parametrize("text", SIGNS)
def test_letters_and_signs(text: str) -> None:
    assert is_letter_or_sign(text)


@pytest.mark.parametrize("text", ["", "ab", "\u2764\ufe0f", "\u2b50", "\U0001f525", "\u732b", "\uace0", "o\u0308o"])
def test_words_and_pictures(text: str) -> None:
    assert not is_letter_or_sign(text)
