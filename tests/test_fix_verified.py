"""``fix`` with nothing stood in for, only with fewer probes: what is published is what was measured and scanned."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sau_scan.arrival import Arrived
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.findings import ModelInfo, ScanResult
from sau_scan.options import Budget, FixOptions, ScanOptions
from sau_scan.probes.plan import RECIPES
from sau_scan.provenance import PROVENANCE
from sau_scan.static import open_vetted
from tests.checkpoint.adapters.test_peft_folder import peft
from tests.test_verify import scan

# By name: the package's attribute ``fix`` is the function.
flow = importlib.import_module("sau_scan.fix")
Given = tuple[Path, Path, ScanOptions]


@pytest.fixture(params=["folder", "peft"])
def given(
    request: pytest.FixtureRequest,
    copy_of: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Given:
    """Weights in a pickle, which ``fix`` converts: the input, where to write, and options."""
    small = replace(RECIPES[Budget.QUICK], steps=2, generated=1, null=24, attended=0)
    monkeypatch.setitem(RECIPES, Budget.QUICK, small)
    monkeypatch.setattr(flow, "CLEAN_PROMPTS", 8)
    if request.param == "peft":
        folder = peft(tmp_path / "lora", name="adapter_model.bin", lora_alpha=3)
        return folder, tmp_path / "out.safetensors", ScanOptions(base=tiny_checkpoint, budget=Budget.QUICK)
    unet = copy_of / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(unet), unet.with_suffix(".bin"))
    unet.unlink()
    return copy_of, tmp_path / "out", ScanOptions(budget=Budget.QUICK)


def report_of(path: Path, base: Path | None) -> ScanResult:
    """Of a scan that found nothing: there is a pickle to convert, and nothing else to do."""
    opened = open_vetted(path, base=base)[0]
    below = ModelInfo(path=str(base), family="sd1", files=opened.base.records) if opened.base is not None else None
    info = ModelInfo(path=str(path), family="sd1", files=opened.records, base=below)
    return scan().model_copy(update={"model": info})


def test_what_is_published_was_measured_and_scanned(given: Given) -> None:
    path, out, options = given
    done = flow.fix(path, FixOptions(out=out, scan=options), report_of(path, options.base))
    assert done.published == str(out) and done.after is not None and done.after.complete
    written = open_checkpoint(out, base=options.base).records
    assert done.after.model.files == tuple(record for record in written if record.path != PROVENANCE)


def test_only_the_scan_before_is_bounded_in_time(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan of the result is the proof: it is never cut short."""
    path, out, options = given
    bounded, seen = replace(options, max_time=9.0), list[ScanOptions]()

    def detect(place: Arrived, *_: object, **known: object) -> ScanResult:
        seen.append(place.options)
        return report_of(place.path, options.base)

    monkeypatch.setattr(flow, "detect_with", detect)
    assert flow.fix(path, FixOptions(out=out, scan=bounded)).published == str(out)
    assert seen == [bounded, replace(bounded, max_time=None)]
