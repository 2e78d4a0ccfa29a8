"""The flow of ``fix``: what it repairs, what it refuses, what it leaves behind."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.patch import make_patch
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.cli.exits import Code, after_fix
from sau_scan.errors import UsageError, WriteError
from sau_scan.findings import (
    Check,
    Component,
    Cost,
    Coverage,
    Finding,
    ModelInfo,
    RepairStep,
    ScanResult,
    Severity,
    Skipped,
    Slot,
    Trigger,
    Verification,
)
from sau_scan.options import Budget, FixOptions, ScanOptions, Silent
from sau_scan.repairs.campaign import Campaign
from sau_scan.reports.text import render_text
from sau_scan.verify import Outcome
from tests.test_verify import finding, scan

# By name: the package's attribute ``fix`` is the function.
flow = importlib.import_module("sau_scan.fix")
STAR = Trigger(text="star", slot=Slot.PREFIX)
MOON = Trigger(text="moon", slot=Slot.SUFFIX)


class World:
    """Stands in for scanning, repairing and verifying; each repair moves one tensor."""

    def __init__(self) -> None:
        self.scans: list[ScanResult] = []
        self.outcomes: list[Outcome] = []
        self.repaired: list[Trigger] = []
        self.given: list[bool] = []
        self.hints: list[object] = []

    def detect(self, *given: object, **known: object) -> ScanResult:
        return self.scans.pop(0)

    def repair(
        self, campaign: Campaign, trigger: Trigger, *, hint: object = None, given: bool = False, once: bool = False
    ) -> None:
        self.hints.append(hint)
        self.repaired.append(trigger)
        self.given.append(given)
        campaign.cases.append(SimpleNamespace(trigger=trigger))  # type: ignore[arg-type]
        name = "conv_in.bias"
        ref = campaign.model.disk_tensor("unet", name)
        value = campaign.model.unet.state_dict()[name] + float(len(self.repaired))
        campaign.patch = campaign.patch.merge(make_patch(campaign.model.checkpoint, {ref: value}))
        campaign.steps.append(RepairStep(method="test", component=Component.UNET, trigger=trigger))

    def verify(self, folder: Path, *given: Any) -> Outcome:
        return examined(self.outcomes.pop(0), folder, given[-1])


def examined(outcome: Outcome, draft: Path, base: Checkpoint | None) -> Outcome:
    """``outcome`` as one of what lies in ``draft``."""
    files = open_checkpoint(draft, base=base).records
    assert files and outcome.after is not None
    model = outcome.after.model.model_copy(update={"files": files})
    return replace(outcome, files=files, after=outcome.after.model_copy(update={"model": model}))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(flow, "detect_with", made.detect)
    monkeypatch.setattr(flow, "verify", made.verify)
    monkeypatch.setattr(Campaign, "repair", lambda campaign, trigger, **how: made.repair(campaign, trigger, **how))
    monkeypatch.setattr(flow._Run, "_clean", lambda self: None)
    return made


def outcome(*new: Finding, passed: bool | None = None) -> Outcome:
    sound = not new if passed is None else passed
    check = Check(name="clean pictures moved", after=0.5, limit=0.02, passed=sound or bool(new))
    return Outcome(Verification(checks=(check,), passed=sound), scan(*new, path="draft"), new)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_a_repair_that_passes_is_published_with_its_record(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    world.scans, world.outcomes = [scan(finding(STAR))], [outcome()]
    result = flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out"))
    assert result.published == str(tmp_path / "out")
    assert world.repaired == [STAR]
    assert world.given == [False]
    assert world.hints == [Component.UNET]
    record = json.loads((tmp_path / "out" / flow.PROVENANCE).read_text())
    assert record["verified"] is True
    assert record["triggers"][0]["text"] == "star"
    assert record["base"] is None
    changed = [path for path, of in record["files"].items() if of["before"] != of["after"]]
    assert changed == ["unet/diffusion_pytorch_model.safetensors"]
    for path, of in record["files"].items():
        assert open_checkpoint(tmp_path / "out").record(path).sha256 == of["after"]  # type: ignore[union-attr]
    assert result.repair is not None
    assert result.repair.tensors_changed == 1
    assert result.repair.files_identical == len(record["files"]) - 1
    assert result.after is not None
    assert result.after.model.path == str(tmp_path / "out")
    assert names(tmp_path) == {"out"}


def test_the_record_names_the_base_by_its_hashes(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    world.scans, world.outcomes = [scan(finding(STAR))], [outcome()]
    unet = tiny_checkpoint / "unet/diffusion_pytorch_model.safetensors"
    options = FixOptions(out=tmp_path / "out.safetensors", scan=ScanOptions(base=tiny_checkpoint))
    assert flow.fix(unet, options).published
    record = json.loads((tmp_path / f"out.safetensors.{flow.PROVENANCE}").read_text())
    assert record["base"] == {r.path: r.sha256 for r in open_checkpoint(tiny_checkpoint).records}


def test_a_repair_that_fails_leaves_nothing(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    world.scans, world.outcomes = [scan(finding(STAR))], [outcome(passed=False)]
    result = flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out"))
    assert result.published is None
    assert not result.nothing_to_repair
    assert "clean pictures moved" in result.reason
    assert names(tmp_path) == set()


@pytest.mark.parametrize("when", ["after the pictures", "after the scan"])
def test_only_the_bytes_that_were_verified_are_published(
    world: World, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def altered(draft: Path, *given: Any) -> Outcome:
        before = examined(outcome(), draft, None)
        (draft / "unet/config.json").write_text(" " + (draft / "unet/config.json").read_text())
        now = examined(outcome(), draft, None)
        return before if when == "after the scan" else replace(now, files=before.files)

    world.scans = [scan(finding(STAR))]
    monkeypatch.setattr(flow, "verify", altered)
    with pytest.raises(WriteError, match="changed while it was being verified"):
        flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out"))
    assert names(tmp_path) == set()


def test_a_failed_repair_can_be_kept_and_is_marked(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    world.scans, world.outcomes = [scan(finding(STAR))], [outcome(passed=False)]
    result = flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out", keep_failed=True))
    assert result.published is None
    assert flow.FAILED in names(tmp_path / "out")
    assert flow.PROVENANCE not in names(tmp_path / "out")


def test_what_the_re_scan_finds_beside_is_repaired_too(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    world.outcomes = [outcome(finding(MOON)), outcome()]
    result = flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out", triggers=(STAR,)))
    assert world.repaired == [STAR, MOON]
    assert world.given == [True, False]
    assert result.published is not None
    assert result.before is None


def test_a_trigger_that_stays_is_not_tried_for_ever(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    world.scans, world.outcomes = [scan(finding(STAR))], [outcome(finding(STAR))]
    result = flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out"))
    assert result.published is None
    assert world.repaired == [STAR]
    ever_new = [finding(Trigger(text=f"t{i}", slot=Slot.PREFIX)) for i in range(9)]
    world.scans, world.outcomes = [scan(finding(STAR))], [outcome(f) for f in ever_new]
    assert flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out")).published is None
    assert len(world.outcomes) == len(ever_new) - flow.ROUNDS
    assert names(tmp_path) == set()


def test_nothing_to_repair(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    world.scans = [scan(finding(STAR, Severity.LOW))]
    result = flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out"))
    assert result.nothing_to_repair
    assert names(tmp_path) == set()


def test_a_dry_run_plans_and_writes_nothing(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    world.scans = [scan(finding(STAR))]
    result = flow.fix(tiny_checkpoint, FixOptions(dry_run=True))
    assert result.dry_run
    assert result.repair is not None
    assert result.repair.steps
    assert result.verification is None
    assert names(tmp_path) == set()


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_method_that_changes_nothing_is_not_verified(
    world: World, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    world.scans = [scan(finding(STAR))]
    monkeypatch.setattr(Campaign, "repair", lambda *_, **__: None)
    result = flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out", dry_run=dry_run, method="restore"))
    assert result.published is None
    assert result.reason == "restore finds nothing to change; leave out --method"
    assert after_fix(result).code is Code.FOUND
    assert "NOT PUBLISHED" in render_text(result)
    assert names(tmp_path) == set()


def report_of(folder: Path, *findings: Finding) -> ScanResult:
    records = open_checkpoint(folder).records
    return scan(*findings).model_copy(update={"model": ModelInfo(path=str(folder), family="sd1", files=records)})


def test_a_report_of_these_files_saves_the_scan(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    world.outcomes = [outcome()]
    report = report_of(tiny_checkpoint, finding(STAR))
    result = flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out"), report)
    assert result.published is not None
    assert result.before == report


@pytest.mark.parametrize("options", [FixOptions(), FixOptions(out=Path("x"), method="magic")])
def test_unusable_options(world: World, tiny_checkpoint: Path, options: FixOptions) -> None:
    with pytest.raises(UsageError):
        flow.fix(tiny_checkpoint, options)


def test_the_checkpoint_itself_is_not_an_output(world: World, tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError):
        flow.fix(tiny_checkpoint, FixOptions(out=tiny_checkpoint, triggers=(STAR,)))
    assert world.repaired == []


def test_an_interrupt_leaves_nothing(
    world: World, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: object) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out", triggers=(STAR,)))
    assert names(tmp_path) == set()


def test_the_scan_before_is_not_lost_with_the_repair(
    world: World, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise WriteError("The disk is full.", hint="Free some.")

    world.scans = [before := scan(finding(STAR))]
    monkeypatch.setattr(flow, "verify", full)
    with pytest.raises(WriteError) as caught:
        flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out"))
    assert caught.value.partial == before


def test_a_re_scan_that_was_not_carried_out_is_told(world: World, tiny_checkpoint: Path, tmp_path: Path) -> None:
    late = Coverage(skipped=(Skipped(what="pictures", reason="the memory is full", planned=True),))
    after = scan(path="draft").model_copy(update={"coverage": late})
    world.scans, world.outcomes = [scan(finding(STAR))], [replace(outcome(passed=False), after=after)]
    result = flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out"))
    assert after_fix(result).code is Code.FOUND and not (tmp_path / "out").exists()
    assert "re-scan was not carried out as planned: pictures: the memory is full" in result.reason


class Told(Silent):
    """Keeps what is planned."""

    def __init__(self) -> None:
        self.plans: list[str] = []

    def plan(self, text: str) -> None:
        self.plans.append(text)


@pytest.mark.parametrize(
    ("options", "known"),
    [(ScanOptions(), True), (ScanOptions(budget=Budget.QUICK), False), (ScanOptions(max_time=60.0), False)],
)
def test_the_scan_of_the_result_is_planned_and_costs_what_that_before_did(
    world: World, tiny_checkpoint: Path, tmp_path: Path, options: ScanOptions, known: bool
) -> None:
    used = Coverage(used=Cost(text_passes=7, unet_passes=5120, seconds=60))
    world.scans, world.outcomes = [scan(finding(STAR)).model_copy(update={"coverage": used})], [outcome()]
    told = Told()
    flow.fix(tiny_checkpoint, FixOptions(out=tmp_path / "out", scan=options), progress=told)
    (plan,) = told.plans
    assert "a scan of the result" in plan
    assert ("5,120 UNet passes, 7 text passes, 1 min 00 s" in plan) == known
