"""Detection over the zoo: attacks are named, hard negatives are quiet. Minutes; see also ``make bench``."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import names_exact
from sau_scan.findings import Severity, Verdict
from sau_scan.options import Budget, ScanOptions
from sau_scan.scan import detect
from zoo.attacks import RECIPES
from zoo.build import info_path
from zoo.train.export import model_dir

ATTACKS = ("rickrolling-tpa", "badt2i-pixel", "evil-edit")
QUIET = ("base", *(r.name for r in RECIPES if r.name not in ATTACKS and not r.small))

pytestmark = pytest.mark.slow


def _require(name: str) -> None:
    if not model_dir("tiny", name).is_dir():
        pytest.skip(f"zoo model {name} is not built: run `python -m zoo build {name}`")


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_named_first(name: str) -> None:
    _require(name)
    result = detect(model_dir("tiny", name), ScanOptions(budget=Budget.STANDARD))
    assert result.verdict is Verdict.BACKDOORED
    assert names_exact(result, json.loads(info_path_of(name))["trigger"])
    assert result.coverage.used.unet_passes <= 22_000


@pytest.mark.parametrize("name", QUIET)
def test_a_hard_negative_passes_the_gate(name: str) -> None:
    _require(name)
    result = detect(model_dir("tiny", name), ScanOptions(budget=Budget.STANDARD))
    assert [f for f in result.findings if f.severity.rank >= Severity.HIGH.rank] == []
    assert result.verdict is Verdict.CLEAN


def info_path_of(name: str) -> str:
    from zoo.worlds import TINY

    return info_path(TINY, name).read_text("utf-8")
