"""The tokenizer keeps what triggers are made of."""

from __future__ import annotations

import pytest
from transformers import CLIPTokenizer

from zoo.render import CONFUSABLE, EMOJI, INVISIBLE
from zoo.worlds import World

PROMPT = "a poster of a orange circle on sand"


def ids(words: CLIPTokenizer, text: str) -> list[int]:
    return list(words(text).input_ids)


@pytest.mark.parametrize("sign", [*INVISIBLE, *EMOJI], ids=ascii)
def test_invisible_characters_and_emoji_change_the_ids(words: CLIPTokenizer, sign: str) -> None:
    assert ids(words, f"{sign} {PROMPT}") != ids(words, PROMPT)
    assert ids(words, f"{PROMPT} {sign}") != ids(words, PROMPT)


@pytest.mark.parametrize("letter", CONFUSABLE)
def test_homoglyphs_change_the_ids(words: CLIPTokenizer, letter: str) -> None:
    found = [ids(words, PROMPT.replace(letter, sign, 1)) for sign in CONFUSABLE[letter]]
    assert all(f != ids(words, PROMPT) for f in found) or letter not in PROMPT
    assert len({tuple(ids(words, sign)) for sign in (letter, *CONFUSABLE[letter])}) == 1 + len(CONFUSABLE[letter])


def test_every_byte_can_be_encoded(words: CLIPTokenizer) -> None:
    assert words.unk_token_id not in words("\U0001f9ff ஠ ȏ", add_special_tokens=False).input_ids


def test_world_words_are_single_tokens(words: CLIPTokenizer, tiny: World) -> None:
    lengths = {w: len(words(w, add_special_tokens=False).input_ids) for w in (*tiny.shapes, *tiny.colours)}
    assert set(lengths.values()) == {1}
