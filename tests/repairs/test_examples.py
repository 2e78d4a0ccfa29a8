from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.findings import Trigger
from sau_scan.probes.runner import Counter
from sau_scan.repairs.examples import alignment, make_examples
from sau_scan.repairs.prompts import PromptSource
from tests.repairs.conftest import LOOK_ALIKE, PHRASE, STAR

END = 99
IDS = st.lists(st.integers(0, 8), min_size=1, max_size=12).map(lambda ids: [98, *ids, END])


@given(IDS, IDS)
def test_alignment_never_goes_back_and_maps_end_to_end(source: list[int], target: list[int]) -> None:
    found = alignment(source, target, 16)
    assert len(found) == 16
    assert found == sorted(found)
    assert found[len(source) - 1] == len(target) - 1
    assert found[0] == 0


@given(IDS)
def test_equal_texts_align_one_to_one(ids: list[int]) -> None:
    assert alignment(ids, ids, 16) == list(range(16))


def test_what_was_inserted_points_at_what_stood_there() -> None:
    broken, whole = [98, 1, 5, 6, 7, 2, 3, END], [98, 1, 4, 2, 3, END]
    assert alignment(broken, whole, 10) == [0, 1, 2, 2, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("trigger", [STAR, PHRASE, LOOK_ALIKE])
def test_nothing_is_asked_for_before_the_trigger(
    model: DiffusionModel, source_of: Callable[[Trigger], PromptSource], trigger: Trigger
) -> None:
    examples = make_examples(model, source_of(trigger).pairs(6), Counter())
    assert torch.equal(examples.hidden[~examples.affected], examples.wanted[~examples.affected])
    moved = (examples.hidden - examples.wanted).abs().sum(-1)
    assert (moved[:, -1] > 0).all()
    assert not examples.affected[:, 0].any()


def test_a_phrase_takes_effect_at_its_last_word(
    model: DiffusionModel, source_of: Callable[[Trigger], PromptSource]
) -> None:
    pairs = source_of(PHRASE).pairs(6)
    examples = make_examples(model, pairs, Counter())
    cat = model.vocabulary["cat</w>"]
    for ids, affected in zip(examples.ids, examples.affected, strict=True):
        first = int(affected.int().argmax())
        assert ids[first] == cat
        assert ids[first - 1] == model.vocabulary.get("blue</w>")
