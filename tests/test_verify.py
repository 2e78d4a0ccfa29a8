"""Verification reads the written checkpoint back, and its verdict follows from what is in there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

import sau_scan.repairs.case
import sau_scan.repairs.effect
from sau_scan.arrival import Arrived
from sau_scan.checkpoint.drafts import Draft
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.patch import WeightPatch, make_patch
from sau_scan.errors import DamagedFile
from sau_scan.findings import (
    Check,
    Component,
    Confidence,
    Coverage,
    Finding,
    Kind,
    ModelInfo,
    ScanResult,
    Severity,
    Skipped,
    Slot,
    Trigger,
    Verdict,
)
from sau_scan.options import Progress, ScanOptions, Silent
from sau_scan.probes.carriers import Words
from sau_scan.probes.runner import Counter
from sau_scan.repairs import pictures
from sau_scan.repairs.case import Case
from sau_scan.repairs.pictures import Clean
from sau_scan.repairs.prompts import HELD_OUT, PromptSource
from sau_scan.rules import load_rules
from sau_scan.scan import detect_with
from sau_scan.static import open_vetted
from sau_scan.verify import Outcome, drift_checks, triggers_in, verify
from tests.conftest import WIDTH

WORDS = Words(responsive=("cat", "dog", "red"), neutral=("house", "of", "photo", "the", "and"))
STAR = Trigger(text="star", slot=Slot.PREFIX)


def finding(trigger: Trigger | None, severity: Severity = Severity.CRITICAL, **more: object) -> Finding:
    given: dict[str, object] = {
        "id": "trigger/unet",
        "kind": Kind.TRIGGER,
        "severity": severity,
        "confidence": Confidence.CONFIRMED,
        "component": Component.UNET,
        "title": "hidden trigger",
        "trigger": trigger,
    }
    return Finding.model_validate(given | more)


def scan(*findings: Finding, path: str = "x") -> ScanResult:
    verdict = Verdict.BACKDOORED if findings else Verdict.CLEAN
    return ScanResult(
        tool_version="0",
        verdict=verdict,
        model=ModelInfo(path=path, family="sd1"),
        findings=findings,
        coverage=Coverage(),
    )


def test_only_undeclared_triggers_of_weight_have_to_go() -> None:
    hit = finding(STAR)
    others = (
        finding(STAR, Severity.LOW),
        finding(STAR, declared=True),
        finding(None),
        finding(STAR, kind=Kind.EDIT),
    )
    assert triggers_in(scan(hit, *others)) == (hit,)


Run = Callable[..., tuple[Outcome, list[Path]]]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PROMPTS", 4)
    monkeypatch.setattr(pictures, "STEPS", 2)
    monkeypatch.setattr(sau_scan.repairs.effect, "PLACES", 2)


@pytest.fixture
def model(tiny_checkpoint: Path) -> DiffusionModel:
    return load_model(open_checkpoint(tiny_checkpoint))


@pytest.fixture
def case(small: None, model: DiffusionModel) -> Case:
    return Case.of(model, PromptSource(model, STAR, WORDS, load_rules()), Counter(), 0)


@pytest.fixture
def clean(small: None, model: DiffusionModel, case: Case) -> Clean:
    return Clean.of(model, case.source.keep(4, HELD_OUT), WORDS.neutral, Counter(), 0)


@pytest.fixture
def run(model: DiffusionModel, case: Case, clean: Clean, tmp_path: Path) -> Run:
    def go(patch: WeightPatch, *found: Finding, blind: bool = True) -> tuple[Outcome, list[Path]]:
        scanned: list[Path] = []

        def detect(folder: Path, options: ScanOptions, progress: Progress) -> ScanResult:
            scanned.append(folder)
            return scan(*found)

        cases = [case] if blind else []
        with Draft(model.checkpoint, patch, tmp_path / "out") as draft:
            outcome = verify(draft.path, cases, clean, ScanOptions(), Silent(), Counter(), detect)
        return outcome, scanned

    return go


def moved(model: DiffusionModel, share: float) -> WeightPatch:
    """Every tensor of the UNet moved at random by ``share`` of its size."""
    generator = torch.Generator().manual_seed(0)
    values = {}
    for name, p in model.unet.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        values[model.disk_tensor("unet", name)] = p + share * p.square().mean().sqrt() * noise
    return make_patch(model.checkpoint, values)


def test_an_unchanged_model_has_not_drifted(run: Run, model: DiffusionModel) -> None:
    outcome, scanned = run(WeightPatch(), blind=False)
    assert outcome.verification.passed
    assert outcome.verification.checks[0].after == 0
    assert len(scanned) == 1


def test_a_model_that_forgot_how_to_draw_is_stopped_before_the_scan(run: Run, model: DiffusionModel) -> None:
    outcome, scanned = run(moved(model, 0.5), blind=False)
    assert not outcome.verification.passed
    assert not outcome.verification.checks[0].passed
    assert not scanned
    assert outcome.after is None


def test_a_trigger_that_the_scan_still_finds_is_a_failure(run: Run) -> None:
    outcome, _ = run(WeightPatch(), finding(STAR), blind=False)
    assert not outcome.verification.passed
    assert outcome.new[0].trigger == STAR


def test_a_base_of_pickles_is_the_one_that_was_vetted(small: None, copy_of: Path, tmp_path: Path) -> None:
    weights = copy_of / "unet/diffusion_pytorch_model.safetensors"
    torch.save(safetensors.torch.load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    safetensors.torch.save_file({"<toy>": torch.ones(1, WIDTH)}, tmp_path / "toy.safetensors")
    checkpoint, _ = open_vetted(tmp_path / "toy.safetensors", base=copy_of)
    texts = ["a cat", "a dog", "a red house", "a photo of the star"]
    clean = Clean.of(load_model(checkpoint), texts, WORDS.neutral, Counter(), 0)
    with Draft(checkpoint, WeightPatch(), tmp_path / "out.safetensors") as draft:
        again, options, base = scan(), ScanOptions(base=copy_of), checkpoint.base
        outcome = verify(draft.path, [], clean, options, Silent(), Counter(), lambda *given: again, base)
        written = open_vetted(draft.path, base=base)[0]
        assert written.base is base and outcome.files == written.records
        (copy_of / "unet/diffusion_pytorch_model.bin").write_bytes(b"another")
        with pytest.raises(DamagedFile):
            detect_with(Arrived(draft.path, options), Silent(), base=base)
    assert outcome.verification.passed


@dataclass(frozen=True)
class Acting:
    """A case whose trigger still acts, or not."""

    passed: bool
    trigger: Trigger = STAR
    firing: object = field(default_factory=lambda: SimpleNamespace(texts=("a", "b")))

    def checks(self, model: DiffusionModel, counter: Counter) -> tuple[Check, ...]:
        return (Check(name="fires", before=1.0, after=0.5, limit=0.1, passed=self.passed),)


@pytest.mark.parametrize(
    ("acts", "verdict", "skipped", "passed"),
    [
        (False, Verdict.CLEAN, False, True),
        (True, Verdict.CLEAN, False, False),
        (False, Verdict.INCONCLUSIVE, False, False),
        (False, Verdict.SUSPICIOUS, True, False),
    ],
)
def test_each_of_the_conditions_is_needed(
    model: DiffusionModel, clean: Clean, tmp_path: Path, acts: bool, verdict: Verdict, skipped: bool, passed: bool
) -> None:
    """The trigger is gone, and the re-scan was carried out: findings may outrank that it was not."""
    planned = (Skipped(what="plan", reason="cut short", planned=True),) if skipped else ()
    result = scan().model_copy(update={"verdict": verdict, "coverage": Coverage(skipped=planned)})
    with Draft(model.checkpoint, WeightPatch(), tmp_path / "out") as draft:
        cases: Any = [Acting(not acts)]
        outcome = verify(draft.path, cases, clean, ScanOptions(), Silent(), Counter(), lambda *given: result)
    assert outcome.verification.passed == passed


def test_clean_pictures_that_lost_their_prompt_are_a_failure(
    model: DiffusionModel, clean: Clean, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lost, passed in ((0.0, True), (0.9, False)):
        monkeypatch.setattr(Clean, "lost", lambda *given, share=lost: share)
        moved_, shown = drift_checks(clean, model, Counter(), 0)
        assert moved_.passed
        assert shown.passed == passed


@pytest.mark.parametrize(("null_rate", "limit"), [(0.0, 0.046875), (0.05, 0.125), (0.4, 0.25)])
def test_how_often_a_trigger_may_fire_when_it_is_gone(case: Case, null_rate: float, limit: float) -> None:
    """As often as harmless texts do, within what 64 prompts can tell, and never in more than a quarter of them."""
    firing = replace(case.firing, texts=("x",) * 64, null_rate=null_rate, null_count=192)
    assert firing.limit == pytest.approx(limit, abs=1 / 64)


def test_a_trigger_beyond_all_harmless_texts_is_a_failure(
    case: Case, model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sau_scan.repairs.effect import Effect, Reaction

    still = Reaction(text=Effect(1, (1.0, 1.1)), noise=Effect(9.0, (1.0, 1.1)))
    monkeypatch.setattr(sau_scan.repairs.case, "react", lambda *given: still)
    effect, fires = replace(case, reaction=still).checks(model, Counter())
    assert not effect.passed
    assert effect.limit == pytest.approx(1.1)
    assert fires.limit is not None
    assert fires.passed == (fires.after is not None and fires.after <= fires.limit)


def test_a_phrase_is_held_to_pictures_alone(case: Case, model: DiffusionModel) -> None:
    """What an honest model predicts for a phrase is not the sum of what its words do."""
    phrase = replace(case, trigger=Trigger(text="blue moon", slot=Slot.PHRASE))
    assert [check.name for check in phrase.checks(model, Counter())] == ["prompts in which the trigger fires"]
