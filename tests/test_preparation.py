from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from sau_scan.findings import Slot
from sau_scan.options import Budget
from sau_scan.preparation import ASKED, _fitted, _seconds_each, _text_seconds
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.plan import RECIPES
from sau_scan.probes.planning import make_plan

A_TEXT, A_PASS = 0.02, 3.0  # seconds: of a full-size checkpoint on two cores, about


def _words(count: int) -> list[Candidate]:
    return [Candidate(f"r{i}", Slot.PREFIX, source="rule") for i in range(20)] + [
        Candidate(f"w{i}", Slot.PREFIX) for i in range(count)
    ]


def _fit(left: float) -> tuple[Any, int]:
    planned = partial(make_plan, RECIPES[Budget.QUICK], carriers=2, overhead=4)
    return _fitted(planned, {Slot.PREFIX: _words(49_000)}, {Slot.PREFIX: A_TEXT}, A_PASS, left, 0)


@pytest.mark.parametrize("left", [320.0, 600.0, 1200.0, 3600.0])
def test_texts_make_room_for_a_plan_of_the_unet(left: float) -> None:
    plan, most = _fit(left)
    texts = _text_seconds(plan.candidates, {Slot.PREFIX: A_TEXT})
    assert plan.unet_passes <= most
    assert texts + plan.unet_passes * A_PASS <= left
    assert texts >= min(left / 16, 49_000 * A_TEXT)


def test_with_time_for_nothing_the_smallest_plan_is_told() -> None:
    plan, most = _fit(10.0)
    assert plan.unet_passes > most


@pytest.mark.parametrize(("slow", "each"), [(0.3, 0.02), (0.3, 0.0005), (0.0, 3.0)])
def test_texts_are_timed_after_the_first_few_which_are_slow(
    slow: float, each: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that runs by what was asked of the encoder: ``slow`` once, and ``each`` for a text."""
    clock, asked = [0.0], list[int]()
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def placed_texts(some: Sequence[Candidate], carriers: int) -> None:
        clock[0] += (0.0 if asked else slow) + each * len(some)
        asked.append(len(some))

    prober: Any = SimpleNamespace(batch=64, placed_texts=placed_texts)
    assert _seconds_each(prober, _words(5000), 1) == pytest.approx(each, rel=0.01)
    assert sum(asked) * each + slow <= max(2 * each, 2 * ASKED + slow)
    assert _seconds_each(prober, [], 1) == 0.0
