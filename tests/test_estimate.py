"""The estimate is of the scan that would be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.estimate import estimate
from sau_scan.options import Budget, ScanOptions
from sau_scan.scan import detect


def test_it_tells_of_each_budget_what_a_scan_plans(tiny_checkpoint: Path) -> None:
    options = ScanOptions(budget=Budget.QUICK)
    found = {e.budget: e for e in estimate(tiny_checkpoint, options).budgets}
    planned = detect(tiny_checkpoint, options).coverage.planned
    quick = found[Budget.QUICK]
    assert (quick.unet_passes, quick.text_passes) == (planned.unet_passes, planned.text_passes)
    assert 0 < quick.seconds < found[Budget.STANDARD].seconds < found[Budget.DEEP].seconds
    assert quick.candidates + quick.only_read <= quick.total
    assert quick.memory > 2**20


def test_nothing_is_probed(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    original = DiffusionModel.predict_noise
    monkeypatch.setattr(
        DiffusionModel,
        "predict_noise",
        lambda self, latents, *rest: rows.append(len(latents)) or original(self, latents, *rest),
    )
    found = estimate(tiny_checkpoint)
    assert sum(rows) <= 97  # three batches are timed, and one row tried when the model is loaded
    assert {e.budget for e in found.budgets} == set(Budget)


def test_a_budget_that_does_not_fit_is_told_with_the_reason(tiny_checkpoint: Path) -> None:
    options = replace(ScanOptions(), max_time=0.01)
    assert all("UNet passes, about" in e.refused for e in estimate(tiny_checkpoint, options).budgets)
