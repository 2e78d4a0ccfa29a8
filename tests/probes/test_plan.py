from __future__ import annotations

import pytest

from sau_scan.findings import Slot
from sau_scan.options import Budget
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.plan import RECIPES, make_plan


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


def test_what_is_left_out_is_vocabulary_first_and_coverage_says_so() -> None:
    plan = make_plan(RECIPES[Budget.QUICK], _candidates(20_000, 100), carriers=24, overhead=192)
    kept = plan.candidates[Slot.PREFIX]
    assert sum(c.source == "rule" for c in kept) == 100
    (coverage,) = [s for s in plan.coverage if s.slot is Slot.PREFIX]
    assert coverage.probed == len(kept) < coverage.total == 20_100


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
    assert len(plan.candidates[Slot.PREFIX]) > 150  # rules first; a leaner recipe leaves more
    assert plan.recipe.controls >= 12
    assert plan.recipe.generated >= 2
