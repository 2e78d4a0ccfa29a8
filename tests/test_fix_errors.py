"""Errors of ``fix``: what they tell, and that nothing is left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sau_scan.errors import DamagedFile, TriggerHasNoEffect, UnsafeFile, UsageError
from sau_scan.findings import ScanResult, Slot, Trigger, Verdict
from sau_scan.options import FixOptions
from tests.static.makers import SYSTEM
from tests.test_fix import flow, names


def test_a_given_trigger_without_a_place_is_told(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Trigger(text="\u0436", slot=Slot.REPLACE, replaces="#")
    with pytest.raises(TriggerHasNoEffect) as caught:
        flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out", triggers=(nowhere,)))
    assert "--slot" in caught.value.hint
    assert names(tmp_path) == set()


def test_the_error_about_what_cannot_be_opened_tells_what_a_scan_says(tiny_checkpoint: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(tiny_checkpoint, tmp_path / "bad"))
    weights = bad / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    weights.with_suffix(".bin").write_bytes(SYSTEM)
    with pytest.raises(UnsafeFile) as caught:
        flow.fix(bad, FixOptions(out=tmp_path / "out"))
    told = caught.value.partial
    assert isinstance(told, ScanResult)
    assert told.verdict is Verdict.SUSPICIOUS
    assert "file/pickle-danger" in {f.id for f in told.findings}
    assert names(tmp_path) == {"bad"}


def test_what_cannot_be_opened_is_not_scanned(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it could be the next moment: a clean scan would be no report of the error."""

    def changed(*_: object, **given: object) -> None:
        raise DamagedFile("x changed while it was being examined.", hint="Start again.")

    scans: list[object] = []
    monkeypatch.setattr(flow, "open_vetted", changed)
    monkeypatch.setattr(flow, "detect_with", lambda *given, **known: scans.append(given))
    with pytest.raises(DamagedFile) as caught:
        flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out"))
    assert caught.value.partial is None and not scans
    monkeypatch.undo()
    unet = tiny_checkpoint / "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(UsageError, match="a bare UNet") as missing:
        flow.fix(unet, FixOptions(out=tmp_path / "out.safetensors"))
    assert isinstance(missing.value.partial, ScanResult)
    assert missing.value.partial.verdict is Verdict.INCONCLUSIVE
