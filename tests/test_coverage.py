"""What a scan did not look at is told, whatever the reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sau_scan.analysers.null_directions import NullDirections
from sau_scan.analysers.phrases import Pair
from sau_scan.coverage import _limits
from sau_scan.findings import Slot
from sau_scan.options import Budget, ScanOptions
from sau_scan.probes.candidates import Candidate, Vocabulary
from sau_scan.tiers.phrases import PhraseTier

EDITED = Pair("halo\x1b[2J", "ribbon", -20.0, -4.0)


def scanned(directions: int = 1, edited: Pair | None = None, means: str = "", unsampled: int = 0) -> Any:
    return SimpleNamespace(
        vocabulary=Vocabulary({"a": 1}, 7),
        null=NullDirections(torch.eye(4)[:directions], (1.0,), 0.5, 0.5),
        phrases=PhraseTier((), edited, 144, edited),
        confirmations=(SimpleNamespace(lead=SimpleNamespace(candidate=Candidate("ght", Slot.PREFIX)), means=means),),
        unsampled=unsampled,
    )


@pytest.mark.parametrize(
    ("what", "budget", "told"),
    [
        (scanned(0), Budget.STANDARD, "pairs of words (the weights gave no lead to any)"),
        (scanned(), Budget.STANDARD, "other words than the 12 most telling"),
        (scanned(edited=EDITED), Budget.STANDARD, '"halo\\x1b[2J" or "ribbon", edited by themselves'),
        (scanned(means="night"), Budget.STANDARD, '"ght" ("night")'),
        (scanned(unsampled=3), Budget.STANDARD, "finished pictures of 3 further leads"),
        (scanned(), Budget.QUICK, "texts and slots of larger budgets"),
    ],
)
def test_a_limit_is_told_where_there_is_one(what: Any, budget: Budget, told: str) -> None:
    assert any(told in limit for limit in _limits(what, ScanOptions(budget=budget)))
    plain = _limits(scanned(1 - len(what.null.basis)), ScanOptions(budget=Budget.DEEP))
    assert not any(told in limit for limit in plain)
