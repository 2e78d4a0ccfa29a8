"""What a scan did not look at is told, whatever the reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from sau_scan.analysers.null_directions import NullDirections
from sau_scan.analysers.phrases import Pair
from sau_scan.checkpoint.source import Form
from sau_scan.coverage import _limits, coverage
from sau_scan.findings import Slot, SlotCoverage
from sau_scan.options import Budget, ScanOptions
from sau_scan.probes.candidates import Candidate, Vocabulary
from sau_scan.tiers.phrases import PhraseTier

EDITED = Pair("halo\x1b[2J", "ribbon", -20.0, -4.0)


def scanned(
    directions: int = 1,
    edited: Pair | None = None,
    means: str = "",
    unsampled: int = 0,
    only_read: int = 0,
    why_not: str = "",
) -> Any:
    return SimpleNamespace(
        plan=SimpleNamespace(only_read=only_read, candidates={}),
        vocabulary=Vocabulary({"a": 1}, 7),
        null=NullDirections(torch.eye(4)[:directions], (1.0,), 0.5, 0.5, why_not),
        phrases=PhraseTier((), edited, 144, edited),
        confirmations=(SimpleNamespace(lead=SimpleNamespace(candidate=Candidate("ght", Slot.PREFIX)), means=means),),
        unsampled=unsampled,
    )


@pytest.mark.parametrize(("wanted", "told"), [(0.5, False), (0.51, True)])
def test_a_plan_that_covers_less_than_was_asked_for_says_so(wanted: float, told: bool) -> None:
    slots = (SlotCoverage(slot=Slot.PREFIX, probed=1, total=3), SlotCoverage(slot=Slot.SUFFIX, probed=2, total=3))
    recipe = SimpleNamespace(attended=1, generated=1)
    plan = SimpleNamespace(
        coverage=slots, skipped=(), text_passes=0, unet_passes=0, recipe=recipe, only_read=0, candidates={}
    )
    what = SimpleNamespace(**vars(scanned()) | {"plan": plan}, unrecorded=(), leads=(), attention={})
    model = SimpleNamespace(device="cpu", dtype="torch.float32", disk={}, uneven=None)
    prober: Any = SimpleNamespace(model=model, counter=SimpleNamespace(text=0, unet=0))
    checkpoint: Any = SimpleNamespace(records=(), form=Form.FOLDER)
    found = coverage(checkpoint, prober, cast(Any, what), ScanOptions(min_coverage=wanted), [], 1.0)
    reasons = [s.reason for s in found.skipped if s.planned]
    assert reasons == (["50.0 % are in the plan, 51 % were asked for; a larger --budget probes more"] if told else [])


@pytest.mark.parametrize(
    ("what", "budget", "told"),
    [
        (scanned(0), Budget.STANDARD, "pairs of words (the weights gave no lead to any)"),
        (scanned(why_not="too few rows"), Budget.STANDARD, "closed form, and pairs of words: too few rows"),
        (scanned(), Budget.STANDARD, "other words than the 12 most telling"),
        (scanned(edited=EDITED), Budget.STANDARD, '"halo\\x1b[2J" or "ribbon", edited by themselves'),
        (scanned(means="night"), Budget.STANDARD, '"ght" ("night")'),
        (scanned(unsampled=3), Budget.STANDARD, "finished pictures of 3 further leads"),
        (scanned(only_read=1234), Budget.STANDARD, "what 1,234 candidates do in the UNet"),
        (scanned(), Budget.QUICK, "texts and slots of larger budgets"),
    ],
)
def test_a_limit_is_told_where_there_is_one(what: Any, budget: Budget, told: str) -> None:
    assert any(told in limit for limit in _limits(what, ScanOptions(budget=budget)))
    plain = _limits(scanned(1 - len(what.null.basis)), ScanOptions(budget=Budget.DEEP))
    assert not any(told in limit for limit in plain)
