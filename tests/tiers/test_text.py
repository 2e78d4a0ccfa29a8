"""What collapses beyond its kind leads; a character that fires in place of any letter is one trigger, named for the
letter it looks like."""

from __future__ import annotations

import numpy as np
import torch

from sau_scan.findings import Component, Slot
from sau_scan.probes.candidates import Candidate
from sau_scan.recordings import TextRecording
from sau_scan.tiers.leads import Lead, Scored
from sau_scan.tiers.text import _collapses, one_letter_each


def lead(text: str, letter: str | None, slot: Slot = Slot.REPLACE) -> Lead:
    return Lead(Candidate(text, slot, letter), "collapse", Component.TEXT_ENCODER, 0.9, 1e-5)


def test_the_letter_that_it_looks_like_is_named() -> None:
    leads = [lead("\u0435", "o"), lead("\u043e", "o"), lead("\u0435", "e"), lead("\u0435", "a")]
    assert [(c.candidate.text, c.candidate.replaces) for c in one_letter_each(leads)] == [
        ("\u0435", "e"),
        ("\u043e", "o"),
    ]


def test_a_look_alike_is_named_for_its_letter_whatever_it_does_elsewhere() -> None:
    leads = [lead("\u043e", None, Slot.PREFIX), lead("x", None, Slot.PREFIX), lead("\u043e", "o")]
    assert [(c.candidate.text, c.candidate.slot) for c in one_letter_each(leads)] == [
        ("\u043e", Slot.REPLACE),
        ("x", Slot.PREFIX),
    ]


def test_without_a_likeness_the_strongest_stays_and_slots_are_kept_apart() -> None:
    leads = [lead("\u0414", "o"), lead("\u0414", "a"), lead("\u0414", None, Slot.PREFIX)]
    assert [(c.candidate.slot, c.candidate.replaces) for c in one_letter_each(leads)] == [
        (Slot.REPLACE, "o"),
        (Slot.PREFIX, None),
    ]


def read(characters: int, trigger: float, seed: int = 0, pictures: int = 0) -> Scored:
    """Words of which some push prompts together by what they mean, as pictures do, and letters, which mean nothing."""
    rng = np.random.default_rng(seed)
    words = [f"word{i}" for i in range(1500)]
    words += [chr(0x1F300 + i) for i in range(pictures)]
    kept = np.concatenate([1 - rng.exponential(0.05, 1400), rng.uniform(0.35, 0.9, 100 + pictures)])
    signs = [chr(0x0450 + i) for i in range(characters)]
    kept = np.concatenate([kept, 1 - rng.exponential(0.03, characters), [trigger]])
    items = tuple(Candidate(text, Slot.PREFIX) for text in (*words, *signs, "\u043e"))
    values = torch.from_numpy(kept)
    return Scored(items, TextRecording(torch.ones(len(items)), torch.ones(len(items)), values[:, None]))


def test_a_character_is_held_against_its_own_kind() -> None:
    assert [lead.candidate.text for lead in _collapses([read(200, 0.25)])] == ["\u043e"]


def test_characters_that_do_as_others_do_lead_nowhere() -> None:
    found = [len(_collapses([read(200, 0.95, seed, pictures=8)])) for seed in range(50)]
    assert sum(map(bool, found)) <= 1


def test_a_word_is_held_against_words() -> None:
    """What 'west' does to a prompt is nothing out of the ordinary for a word."""
    scored = read(200, 0.95)
    scored.text.retained[0] = 0.3
    assert _collapses([scored]) == []


def test_too_few_characters_say_nothing() -> None:
    assert _collapses([read(20, 0.3)]) == []


def of_encoders(*columns: Scored) -> Scored:
    """One recording of several encoders, the first of which is all of them together."""
    retained = torch.cat([column.text.retained for column in columns], dim=1)
    return Scored(columns[0].candidates, TextRecording(columns[0].text.shift, columns[0].text.each, retained))


def test_an_encoder_that_collapses_does_not_hide_among_others() -> None:
    quiet = read(200, 0.9, seed=1)
    [found] = _collapses([of_encoders(read(200, 0.7), quiet, read(200, 0.02, seed=2))], ("", "first", "second"))
    assert (found.candidate.text, found.encoder) == ("\u043e", "second")
    [found] = _collapses([of_encoders(read(200, 0.02), quiet, read(200, 0.01, seed=2))], ("", "first", "second"))
    assert (found.candidate.text, found.encoder) == ("\u043e", "")
    assert _collapses([of_encoders(read(200, 0.7), quiet, read(200, 0.2, seed=2))], ("", "first", "second")) == []
    [found] = _collapses([of_encoders(read(200, 0.3), quiet, read(200, 0.02, seed=2))], ("", "first", "second"))
    assert found.encoder == "second"  # which leaves least


def test_strong_words_lead_nowhere_in_any_of_several_encoders() -> None:
    columns = [[read(200, 0.95, 4 * seed + k, pictures=8) for k in range(4)] for seed in range(50)]
    assert sum(bool(_collapses([of_encoders(*four)], ("", *"abc"))) for four in columns) <= 1
