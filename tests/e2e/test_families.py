"""A scan of every family goes through all tiers, and says what it did not look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from sau_scan.findings import Slot, Trigger, Verdict
from sau_scan.fix import fix
from sau_scan.options import Budget, FixOptions, ScanOptions
from sau_scan.scan import detect
from tests.tiny_models import FAMILIES, save

QUICK = ScanOptions(budget=Budget.QUICK)
# Seconds each, where nothing else runs; the others have the same parts.
FAST = {"sdxl", "flux"}
TITLES = {
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3.x",
    "sd3 without T5": "Stable Diffusion 3.x",
    "flux": "FLUX.1",
    "pixart": "PixArt-alpha",
    "pixart-sigma": "PixArt-Sigma",
}


@pytest.mark.parametrize("family", [f if f in FAST else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_random_weights_are_scanned_through_all_tiers(family: str, tmp_path: Path) -> None:
    result = detect(save(family, tmp_path / "checkpoint"), QUICK)
    assert result.model.family == TITLES[family]
    assert result.verdict in (Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.BACKDOORED)
    found = result.coverage
    assert found.candidates_probed > 100 and found.used.unet_passes > 1000
    assert not any(s.planned for s in found.skipped)
    joint = family not in ("sd2", "sdxl")
    assert {d.id for d in found.detectors if not d.ran} == ({"null-direction"} if joint else set())
    assert any("closed form" in limit for limit in found.limits) is joint


def test_what_cannot_be_repaired_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = save("pixart", tmp_path / "checkpoint")
    trigger = Trigger(text="star", slot=Slot.PREFIX)
    result = fix(folder, FixOptions(out=tmp_path / "out", triggers=(trigger,), scan=QUICK))
    assert result.published is None and not result.nothing_to_repair
    assert "PixArt-alpha" in result.reason and not (tmp_path / "out").exists()
