import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.findings import Slot, Trigger
from sau_scan.repairs.holes import find_hole

CARRIERS = st.lists(st.sampled_from(["a", "photo", "of", "cat", "dog", "one"]), min_size=1, max_size=6).map(" ".join)
SLOTS = st.sampled_from([Slot.PREFIX, Slot.SUFFIX, Slot.INSIDE, Slot.PHRASE])


@given(CARRIERS, SLOTS, st.integers(0, 99))
def test_the_text_stands_in_its_place_once(carrier: str, slot: Slot, seed: int) -> None:
    hole = find_hole(Trigger(text="\u2603", slot=slot), carrier, ("cat", "dog"), np.random.default_rng(seed))
    if hole is None:
        assert slot is Slot.INSIDE
        assert carrier == "a" * len(carrier)
        return
    text = hole.fill("\u2603")
    assert text.count("\u2603") == 1
    assert hole.clean == carrier
    if slot is Slot.PREFIX:
        assert text == f"\u2603 {carrier}"
    if slot is Slot.SUFFIX:
        assert text == f"{carrier} \u2603"


@given(CARRIERS, st.integers(0, 99))
def test_a_letter_is_replaced_within_a_word_and_can_be_restored(carrier: str, seed: int) -> None:
    trigger = Trigger(text="\u043e", slot=Slot.REPLACE, replaces="o")
    hole = find_hole(trigger, carrier, (), np.random.default_rng(seed))
    if hole is None:
        assert "o" not in carrier
    else:
        assert hole.in_word
        assert hole.fill("o") == carrier


def test_a_phrase_takes_the_place_of_a_word_of_meaning() -> None:
    trigger = Trigger(text="old boat", slot=Slot.PHRASE)
    filled = set()
    for seed in range(20):
        hole = find_hole(trigger, "a photo of a cat", ("cat",), np.random.default_rng(seed))
        assert hole is not None
        filled.add(hole.fill(trigger.text))
    assert filled == {"a photo of a old boat", "a photo of a cat old boat"}
