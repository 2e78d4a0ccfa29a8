"""Pictures decide which of two words a phrase is drawn as, with the modifier's kin as the null."""

from __future__ import annotations

import pytest
import torch

from sau_scan.analysers.phrases import Pair
from sau_scan.findings import Slot
from sau_scan.probes.plan import PHRASE_FRAMES, PHRASE_KIN, PHRASE_NOISES, RECIPES
from sau_scan.tiers.phrases import Drawn, PhraseLead, _judge

PAIR = Pair("dog", "star", -9.0)


def drawn(head: float, target: float, seed: int = 0) -> Drawn:
    made = torch.randn(2, 6, 4, 2, 2, generator=torch.Generator().manual_seed(seed))
    return Drawn(made[0], made[1], (head, target))


KIN = [drawn(-1.0, 1.1, 1), drawn(-1.1, 0.9, 2), drawn(-0.9, 1.0, 3)]


def lead(p_value: float = 1e-3) -> PhraseLead:
    return PhraseLead("blue", PAIR, 7.0, p_value)


def test_a_phrase_drawn_as_its_counterpart_is_a_finding() -> None:
    found = _judge(lead(), drawn(0.9, 1.0), KIN)
    assert found.works
    assert found.seen
    assert (found.lead.candidate.text, found.lead.candidate.slot) == ("blue dog", Slot.PHRASE)
    assert found.lead.evidence[1].note == "blue star"
    assert found.lead.evidence[1].value == pytest.approx(0.95)


def test_pictures_tell_which_of_the_pair_was_edited() -> None:
    found = _judge(lead(), drawn(-1.0, -0.8), KIN)
    assert found.works
    assert found.lead.candidate.text == "blue star"
    assert found.lead.evidence[1].note == "blue dog"


@pytest.mark.parametrize("own", [drawn(-1.0, 1.0), drawn(-0.2, 1.0), drawn(-1.0, 0.3)])
def test_a_phrase_drawn_as_what_it_says_is_none_whatever_the_weights_say(own: Drawn) -> None:
    assert not _judge(lead(1e-12), own, KIN).works


def test_pictures_alone_are_not_enough() -> None:
    found = _judge(lead(0.2), drawn(0.9, 1.0), KIN)
    assert found.seen
    assert not found.works


def test_nothing_is_read_where_kin_are_not_drawn_as_themselves() -> None:
    """After an edit of a word by itself both words are drawn alike, whatever comes before."""
    assert not _judge(lead(1e-12), drawn(0.9, 1.0), [*KIN, drawn(1.0, 1.0)]).seen


def test_a_phrase_must_go_farther_astray_than_any_kin() -> None:
    assert not _judge(lead(), drawn(0.4, 1.0), [*KIN, drawn(0.5, 1.0)]).seen


@pytest.mark.parametrize("recipe", RECIPES.values())
def test_the_plan_allows_for_all_pictures_and_readings(recipe) -> None:  # type: ignore[no-untyped-def]
    pairs = max(1, recipe.phrases // 2)
    pictures = 2 * (2 * pairs + PHRASE_KIN * pairs) * len(PHRASE_FRAMES) * PHRASE_NOISES
    assert recipe.phrase_passes == pictures * (2 * recipe.steps + 4)
