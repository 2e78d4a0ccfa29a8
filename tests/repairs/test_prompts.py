from collections.abc import Callable

import pytest

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.findings import Slot, Trigger
from sau_scan.repairs.prompts import HELD_OUT, TRAINING, PromptSource
from tests.repairs.conftest import LOOK_ALIKE, PHRASE, STAR

Make = Callable[[Trigger], PromptSource]


@pytest.mark.parametrize("trigger", [STAR, PHRASE, LOOK_ALIKE, Trigger(text="\u200b", slot=Slot.INSIDE)])
def test_pairs_carry_the_trigger_and_their_weights_sum_to_one(source_of: Make, trigger: Trigger) -> None:
    pairs = source_of(trigger).pairs(12)
    assert len(pairs) == 12
    for pair in pairs:
        assert trigger.text in pair.triggered
        assert sum(weight for _, weight in pair.counterparts) == pytest.approx(1)
        assert all(trigger.text not in text for text, _ in pair.counterparts)


@pytest.mark.parametrize("trigger", [STAR, PHRASE, LOOK_ALIKE])
def test_what_must_stay_is_free_of_the_trigger(source_of: Make, trigger: Trigger) -> None:
    kept = source_of(trigger).keep(60)
    assert len(kept) == 60
    assert not any(trigger.text in text for text in kept)


def test_held_out_carriers_are_others(source_of: Make) -> None:
    source = source_of(STAR)
    assert not set(source.carriers(12, TRAINING)) & set(source.carriers(12, HELD_OUT))


def test_a_prefix_is_exchanged_for_neutral_words_of_as_many_tokens(source_of: Make, model: DiffusionModel) -> None:
    def length(text: str) -> int:
        return len(model.tokenizer(text).input_ids)

    for pair in source_of(Trigger(text="red star", slot=Slot.PREFIX)).pairs(6):
        assert {length(text) for text, _ in pair.counterparts} == {length(pair.triggered)}


def test_a_replaced_letter_is_restored(source_of: Make) -> None:
    for pair in source_of(LOOK_ALIKE).pairs(6):
        assert pair.counterparts == ((pair.triggered.replace("\u043e", "o"), 1.0),)


def test_a_phrase_keeps_what_its_first_word_says_of_others(source_of: Make) -> None:
    pair = source_of(PHRASE).pairs(1)[0]
    positive = [text for text, weight in pair.counterparts if weight > 0]
    assert any("blue" in text and "cat" not in text.split("blue")[1] for text in positive)
    assert any("cat" in text and "blue" not in text for text in positive)


def test_nulls_stand_in_the_places_of_the_pairs(source_of: Make) -> None:
    source = source_of(STAR)
    pairs = source.pairs(5)
    nulls = source.nulls(pairs, 3)
    assert nulls
    for row in nulls:
        assert [text.split(" ", 1)[1] for text in row] == [p.triggered.split(" ", 1)[1] for p in pairs]


def test_a_rare_letter_has_places_made_for_it(source_of: Make) -> None:
    pairs = source_of(Trigger(text="\u0436", slot=Slot.REPLACE, replaces="z")).pairs(12)
    assert len({p.triggered for p in pairs}) > 4
    assert all("\u0436" in p.triggered for p in pairs)


def test_what_no_carrier_has_leaves_no_pairs(source_of: Make) -> None:
    assert source_of(Trigger(text="\u0436", slot=Slot.REPLACE, replaces="#")).pairs(4) == []


def test_triggers_in_parts_are_placed_together(source_of: Make) -> None:
    parts = (Trigger(text="star", slot=Slot.PREFIX), Trigger(text="blue", slot=Slot.SUFFIX))
    source = source_of(Trigger(text="star blue", slot=Slot.PREFIX, parts=parts))
    for pair in source.pairs(4):
        assert pair.triggered.startswith("star ")
        assert pair.triggered.endswith(" blue")
    assert source.is_clean("star cat")
    assert not source.is_clean("star cat blue")
