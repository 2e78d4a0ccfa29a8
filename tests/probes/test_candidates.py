from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.findings import Slot
from sau_scan.probes.candidates import (
    Candidate,
    distinct,
    of_trigger,
    read_vocabulary,
    token_ids_of,
    vocabulary_candidates,
)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> DiffusionModel:
    return load_model(open_checkpoint(tiny_checkpoint))


@pytest.mark.parametrize(
    ("candidate", "placed"),
    [
        (Candidate("\u200b", Slot.PREFIX), "\u200b a photo"),
        (Candidate("sks", Slot.SUFFIX), "a photo sks"),
        (Candidate("\u034f", Slot.INSIDE), "a ph\u034foto"),
        (Candidate("\u043e", Slot.REPLACE, "o"), "a ph\u043eto"),
        (Candidate("z", Slot.REPLACE, "q"), None),
        (Candidate("red cat", Slot.PHRASE), "a photo red cat"),
    ],
)
def test_placing(candidate: Candidate, placed: str | None) -> None:
    assert candidate.apply("a photo") == placed


def test_a_phrase_fills_the_blank_of_a_frame() -> None:
    assert Candidate("red cat", Slot.PHRASE).apply("a {} here") == "a red cat here"


@given(st.text(min_size=1, max_size=5), st.sampled_from([Slot.PREFIX, Slot.SUFFIX, Slot.INSIDE]))
def test_a_reported_trigger_is_the_candidate_again(text: str, slot: Slot) -> None:
    candidate = Candidate(text, slot, source="given")
    assert of_trigger(candidate.trigger()) == candidate


def test_every_typable_token_is_yielded_by_its_text(model: DiffusionModel) -> None:
    vocabulary = read_vocabulary(model)
    assert len(vocabulary.words) + vocabulary.untypable == len(model.vocabulary) - len(
        set(model.tokenizer.all_special_ids)
    )
    for text, token in list(vocabulary.words.items())[::17]:
        assert model.tokenizer(text, add_special_tokens=False).input_ids == [token]
    assert not any("endoftext" in text for text in vocabulary.words)


def test_texts_with_equal_ids_are_one_candidate(model: DiffusionModel) -> None:
    twice = [Candidate("Cat", Slot.PREFIX), Candidate("cat", Slot.PREFIX), Candidate("", Slot.PREFIX)]
    assert [c.text for c in distinct(model, twice, ["a photo"])] == ["Cat"]


def test_what_pushes_the_prompt_out_of_the_context_is_left_out(model: DiffusionModel) -> None:
    long = Candidate("cat " * model.context_length, Slot.PREFIX)
    assert distinct(model, [long], ["a photo"]) == []


def test_token_ids_are_those_that_were_added(model: DiffusionModel) -> None:
    words = vocabulary_candidates(read_vocabulary(model), [Slot.SUFFIX])
    ids = token_ids_of(model, words[5], "a photo")
    assert ids == (read_vocabulary(model).words[words[5].text],)


def test_words_that_an_embedding_adds_are_tried_but_make_no_prompts(model: DiffusionModel) -> None:
    """Prompts with them show little else, and whatever breaks such a word up would look like a trigger."""
    found = read_vocabulary(replace(model, expand=(("cat", "cat cat_1"),)))
    assert "cat" in found.words and "cat" not in found.plain_words
    assert {*read_vocabulary(model).plain_words} == {*found.plain_words, "cat"}
