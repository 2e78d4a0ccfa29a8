from __future__ import annotations

import pytest

from sau_scan.findings import Slot
from sau_scan.options import Budget
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.plan import RECIPES
from sau_scan.probes.planning import make_plan, text_share


def _candidates(words: int, rules: int) -> dict[Slot, list[Candidate]]:
    made = {}
    for slot in (Slot.PREFIX, Slot.SUFFIX):
        made[slot] = [Candidate(f"r{i}", slot, source="rule") for i in range(rules)]
        made[slot] += [Candidate(f"w{i}", slot) for i in range(words)]
    return made


@pytest.mark.parametrize("budget", list(Budget))
@pytest.mark.parametrize("words", [50, 3000, 20_000])
def test_a_plan_stays_within_its_budget(budget: Budget, words: int) -> None:
    recipe = RECIPES[budget]
    candidates = {s: c for s, c in _candidates(words, 100).items() if s in recipe.slots}
    plan = make_plan(recipe, candidates, carriers=24, overhead=192)
    assert plan.unet_passes <= recipe.cap
    assert not plan.skipped


def test_standard_probes_every_candidate_of_a_vocabulary_of_two_thousand() -> None:
    plan = make_plan(RECIPES[Budget.STANDARD], _candidates(1800, 300), carriers=60, overhead=192)
    assert all(s.probed == s.total for s in plan.coverage)


def test_what_the_unet_cannot_look_at_is_read_and_coverage_says_so() -> None:
    plan = make_plan(RECIPES[Budget.QUICK], _candidates(20_000, 100), carriers=24, overhead=192)
    assert len(plan.candidates[Slot.PREFIX]) == 20_100
    (coverage,) = [s for s in plan.coverage if s.slot is Slot.PREFIX]
    assert 100 < coverage.probed == plan.denoised[Slot.PREFIX] < coverage.total == 20_100
    assert plan.only_read == 2 * 20_100 - sum(plan.denoised.values())


def test_of_texts_that_take_too_long_the_vocabularys_are_left_out() -> None:
    candidates = _candidates(1000, 100)
    seconds = {Slot.PREFIX: 0.3, Slot.SUFFIX: 0.1}
    some = text_share(candidates, seconds, 240, seed=0)
    assert sum(len(items) * seconds[slot] for slot, items in some.items()) == pytest.approx(240, rel=0.01)
    assert all(sum(c.source == "rule" for c in items) == 100 for items in some.values())
    assert [c.text for c in some[Slot.PREFIX]] == [c.text for c in some[Slot.SUFFIX]]
    assert text_share(candidates, seconds, 500, seed=0) == candidates
    assert all(len(items) == 100 for items in text_share(candidates, seconds, 1, seed=0).values())


def test_where_pictures_do_not_fit_what_fits_is_denoised() -> None:
    plan = make_plan(RECIPES[Budget.QUICK], _candidates(20_000, 100), carriers=24, overhead=4, most=500)
    assert plan.recipe.generated == plan.recipe.phrases == 0
    assert 300 < plan.unet_passes <= 500
    assert not plan.skipped
    more = make_plan(RECIPES[Budget.QUICK], _candidates(20_000, 100), carriers=24, overhead=4, most=plan.confirming)
    assert more.recipe.generated and more.unet_passes == plan.confirming and not more.confirming


def test_a_plan_that_cannot_be_made_small_enough_says_so() -> None:
    plan = make_plan(RECIPES[Budget.STANDARD], _candidates(3000, 100), carriers=24, overhead=192, most=10)
    assert plan.skipped
    assert plan.skipped[0].planned
    assert "and 10 are allowed" in plan.skipped[0].reason


@pytest.mark.parametrize("budget", list(Budget))
def test_an_edit_in_the_weights_leaves_room_for_everything_that_decides(budget: Budget) -> None:
    """The search for a phrase takes a good third of the quick budget."""
    recipe = RECIPES[budget]
    candidates = {s: c for s, c in _candidates(3000, 80).items() if s in recipe.slots or s is Slot.SUFFIX}
    in_place = [Candidate(f"r{i}", Slot.INSIDE, source="rule") for i in range(130)]
    candidates |= {Slot.INSIDE: in_place[:70], Slot.REPLACE: in_place[70:]}
    plan = make_plan(recipe, candidates, carriers=24, overhead=192, phrase_texts=1000)
    assert plan.unet_passes <= recipe.cap
    assert not plan.skipped
    assert plan.denoised[Slot.PREFIX] > 150  # rules first; a leaner recipe leaves more
    assert plan.recipe.controls >= 12
    assert plan.recipe.generated >= 2
