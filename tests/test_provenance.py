"""What lasts of a repair: under which name it was verified, and under which it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.adapters.applying import read_rows
from sau_scan.checkpoint.families import identify
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.conclude import fix_command
from sau_scan.findings import (
    Component,
    Coverage,
    Finding,
    Kind,
    Location,
    ModelInfo,
    ScanResult,
    Severity,
    Skipped,
    Slot,
    Trigger,
    Verification,
)
from sau_scan.options import FixOptions, ScanOptions
from sau_scan.provenance import PROVENANCE, settled
from sau_scan.reports.text import render_text
from sau_scan.verify import Outcome
from tests.conftest import WIDTH
from tests.test_fix import examined, flow
from tests.test_verify import finding, scan

CAT = Trigger(text="cat", slot=Slot.PHRASE)


def word_of(file: Path, base: Checkpoint | None) -> str:
    checkpoint = open_checkpoint(file, base=base)
    model = load_model(checkpoint)
    return read_rows(checkpoint, identify(checkpoint), model.encoders).word


def scanned(file: Path, *findings: Finding) -> ScanResult:
    model = ModelInfo(path=str(file), family="sd1", form="textual inversion")
    return scan(*findings).model_copy(update={"model": model})


@pytest.mark.parametrize(("content", "told"), [("emb_params", True), ("cat", False)])
def test_an_embedding_is_verified_as_the_word_that_it_was(
    content: str, told: bool, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the name of the output it would be another word, and whatever it does to "cat" would seem gone."""
    words = []

    def verify(draft: Path, *given: object) -> Outcome:
        base = given[-1]
        assert isinstance(base, Checkpoint)
        words.append(word_of(draft, base))
        after = scanned(draft, finding(None, Severity.LOW, location=Location(path=draft.name)))
        return examined(Outcome(Verification(checks=(), passed=True), after), draft, base)

    monkeypatch.setattr(flow, "verify", verify)
    monkeypatch.setattr(flow._Run, "_clean", lambda self: None)
    rows = finding(CAT, Severity.HIGH, id="token-row/ordinary-word", kind=Kind.TOKEN_ROW, component=Component.ADAPTER)
    monkeypatch.setattr(flow, "detect_with", lambda *_, **known: scan(rows))
    file, out = tmp_path / "cat.safetensors", tmp_path / "mended.safetensors"
    safetensors.torch.save_file({content: torch.ones(1, WIDTH)}, file)
    done = flow.fix(file, FixOptions(out=out, scan=ScanOptions(base=tiny_checkpoint)))
    assert words == ["cat"]
    assert done.published == str(out)
    assert ("cat.safetensors" in done.reason) == told
    shown = " ".join(word for word in render_text(done).split() if word != "│")
    assert ("its name is the word" in shown) == told
    assert done.after is not None
    assert [f.location.path for f in done.after.findings if f.location] == ["mended.safetensors"]
    record = json.loads(Path(f"{out}.{PROVENANCE}").read_text())
    assert record["files"]["cat.safetensors"]["after"] == open_checkpoint(out, base=tiny_checkpoint).records[0].sha256
    assert record["base"] == {r.path: r.sha256 for r in open_checkpoint(tiny_checkpoint).records}


@pytest.mark.parametrize("name", ["cat.safetensors", "adapter_model.safetensors"])
def test_what_was_published_is_told_by_its_name(name: str) -> None:
    draft, out = Path("/x/.out.1.draft") / name, Path("/x/out.safetensors")
    steps = fix_command(str(draft), None)
    result = scanned(draft, finding(None, next_step=steps, location=Location(path=draft.name, base="b")))
    left = Skipped(what=draft.name, reason=f"not scanned: {draft} is cut short")
    moved = settled(result.model_copy(update={"coverage": Coverage(skipped=(left,))}), out)
    assert moved is not None
    assert moved.findings[0].next_step == "sau-scan fix /x/out.safetensors --out /x/out-fixed.safetensors"
    assert moved.findings[0].location == Location(path=draft.name, base="b")
    assert moved.coverage.skipped == (Skipped(what=out.name, reason=f"not scanned: {out} is cut short"),)
