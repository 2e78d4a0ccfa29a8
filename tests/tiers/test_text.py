"""A character that fires in place of any letter is one trigger, named for the letter it looks like."""

from __future__ import annotations

from sau_scan.findings import Component, Slot
from sau_scan.probes.candidates import Candidate
from sau_scan.tiers.leads import Lead
from sau_scan.tiers.text import one_letter_each


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
