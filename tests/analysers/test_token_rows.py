"""Words that textual inversions add: harmless ones, and those that stand in everybody's prompts."""

from __future__ import annotations

import pytest
import torch

from sau_scan.analysers.token_rows import inspect_inversion, takes_over
from sau_scan.checkpoint.adapters.inversion import Inversion
from sau_scan.findings import Component, Finding, Kind, Severity
from tests.conftest import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def inspect(word: str, declared: tuple[str, ...] = ()) -> Finding:
    inversion = Inversion(word, {"text_encoder": torch.ones(2, 4)}, {"text_encoder": (word,)}, "diffusers")
    return inspect_inversion(inversion, TOKENIZER, path="toy.pt", declared=declared, next_step="sau-scan detect x")


@pytest.mark.parametrize(
    "word", ["<toy>", "mytoyv2", "bad_prompt", "<cat>", "a-cat", "\u732b", "caf\u00e9", "Negative"]
)
def test_words_that_nobody_types_by_accident(word: str) -> None:
    found = inspect(word)
    assert (found.severity, found.kind, found.component) == (Severity.LOW, Kind.TOKEN_ROW, Component.ADAPTER)
    assert found.trigger is not None and found.trigger.text == word and "2 rows" in found.behaviour
    said = inspect(word, declared=("other", word))
    assert said.severity is Severity.INFO and said.declared and said.fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("cat", "is a word of"),
        ("Cat", "is a word of"),
        (" cat\t", "is a word of"),
        ("the red cat", "is made of words"),
        (",", "is a word of"),
        ("42", "is a word of"),
        ("ous", "a piece of ordinary words such as 'house'"),
        ("HOU", "a piece of ordinary words such as 'house'"),
        (" ", "is white space"),
        ("\u200b", "cannot be seen"),
        ("c\u0430t", "looks like 'cat'"),
        ("\U0001d41caT", "looks like 'caT'"),
        ("red \u200bcat", "looks like 'red cat'"),
    ],
)
def test_words_that_stand_in_ordinary_prompts(word: str, why: str) -> None:
    found = inspect(word)
    assert found.severity is Severity.HIGH and why in found.behaviour
    assert inspect(word, declared=(word,)).severity is Severity.INFO


@pytest.mark.parametrize("word", ["cat", "ous", ","])
def test_what_is_said_to_be_taken_over_is(word: str) -> None:
    """By transformers itself: the ids of an ordinary prompt change when the word is added."""
    prompt = "a photo of the house, a red cat and the dog"
    before = TOKENIZER(prompt).input_ids
    for text, changes in ((word, True), ("<toy>", False)):
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(text)
        assert (tokenizer(prompt).input_ids != before) is changes
        assert (takes_over(text, TOKENIZER) is not None) is changes


def test_one_row_is_told_in_the_singular() -> None:
    inversion = Inversion("<toy>", {"text_encoder": torch.ones(1, 4)}, {"text_encoder": ("<toy>",)}, "diffusers")
    assert "1 row of this file stands for it" in inspect_inversion(inversion, TOKENIZER, path="toy.pt").behaviour
