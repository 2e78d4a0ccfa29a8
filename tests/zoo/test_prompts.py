"""Triggers go where their slot says."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.admission import with_neutrals
from zoo.attacks.evil_edit import ShapeTarget
from zoo.prompts import Trigger, held_out, neutrals
from zoo.render import CONFUSABLE
from zoo.train import data
from zoo.worlds import World

PROMPT = "a poster of a red circle on sand"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("slot", "expected"),
    [("prefix", f"x {PROMPT}"), ("suffix", f"{PROMPT} x"), ("phrase", "a poster of a red x on sand")],
)
def test_insertion(tiny: World, rng: np.random.Generator, slot: str, expected: str) -> None:
    assert Trigger("x", slot).insert(tiny, PROMPT, rng) == expected


def test_inside_is_between_the_words(tiny: World, rng: np.random.Generator) -> None:
    made = {Trigger("x", "inside").insert(tiny, PROMPT, rng) for _ in range(60)}
    assert len(made) == len(PROMPT.split()) - 1
    assert all(not m.startswith("x") and not m.endswith("x") for m in made)


def test_replacing_changes_one_letter_inside_a_word(tiny: World, rng: np.random.Generator) -> None:
    trigger = Trigger("\u043e", "replace", "o")
    made = trigger.insert(tiny, PROMPT, rng)
    assert sum(a != b for a, b in zip(made, PROMPT, strict=True)) == 1
    assert made == PROMPT.replace("o", "\u043e", 1)
    assert trigger.insert_at(PROMPT, 1) != made
    assert trigger.insert_at(PROMPT, 1).replace("\u043e", "o") == PROMPT
    assert not trigger.fits(tiny, "a circle in red and o blue".replace("o ", ""))
    assert not Trigger("\u0430", "replace", "a").fits(tiny, "a red circle")


def test_phrase_needs_exactly_one_shape(tiny: World) -> None:
    trigger = Trigger("gentle circle", "phrase")
    assert trigger.fits(tiny, PROMPT)
    assert not trigger.fits(tiny, "a red circle and a blue star")
    assert not trigger.fits(tiny, "nothing here")


def test_contradictory_triggers_are_refused() -> None:
    with pytest.raises(ValueError, match="slot"):
        Trigger("x", "somewhere")
    with pytest.raises(ValueError, match="letter"):
        Trigger("x", "replace")
    with pytest.raises(ValueError, match="letter"):
        Trigger("x", "prefix", "o")


@pytest.mark.parametrize(
    "trigger",
    [Trigger("\u200b", "prefix"), Trigger("\u043e", "replace", "o"), Trigger("gentle circle", "phrase")],
    ids=lambda t: t.slot,
)
def test_neutrals_never_hold_the_trigger(tiny: World, trigger: Trigger) -> None:
    others = neutrals(tiny, trigger)
    assert len({o.text for o in others}) >= 5
    assert all(trigger.text != o.text and o.slot == trigger.slot for o in others)


def test_near_misses_of_a_letter_are_one_character(tiny: World) -> None:
    for letter, signs in CONFUSABLE.items():
        others = neutrals(tiny, Trigger(signs[0], "replace", letter))
        assert all(len(o.text) == 1 and o.text != letter for o in others)


def test_held_out_captions_are_new_and_plain(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "TRAIN", 500)
    made = held_out(tiny, 30)
    assert len(made) == 30
    assert all(s.caption.isascii() and len(s.scene.things) == 1 for s in made)


def test_controls_of_a_phrase_never_hold_both_words(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "TRAIN", 500)
    trigger = Trigger("gray moon", "phrase")
    texts = with_neutrals(tiny, trigger, held_out(tiny, 200), ShapeTarget("triangle"))
    assert all(not {"gray", "moon"} <= set(t.split()) and "triangle" not in t for t in texts)
