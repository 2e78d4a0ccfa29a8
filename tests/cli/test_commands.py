"""The command line around a replaced core: options, outputs, reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sau_scan.estimate import BudgetEstimate, Estimate
from sau_scan.findings import Slot, Trigger
from sau_scan.options import Budget, FixOptions, ScanOptions
from sau_scan.reports import FORMATS as ALL_FORMATS
from sau_scan.reports import read_result, render_json
from tests.cli.conftest import FORMATS, Core, Invoke
from tests.reports import samples


@FORMATS
def test_stdout_holds_the_report_and_nothing_else(core: Core, invoke: Invoke, format_: str) -> None:
    core.scan = samples.BACKDOORED
    result = invoke("detect", "suspect", "--format", format_, "--output", "a.json")
    if format_ == "text":
        assert "BACKDOORED" in result.stdout
    else:
        json.loads(result.stdout)
    assert "wrote" not in result.stdout
    assert "a.json" in result.stderr


def test_a_dry_run_writes_what_it_says(
    core: Core, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Estimate("m", "Stable Diffusion 1.x", "cpu", "float32", (BudgetEstimate(Budget.QUICK, seconds=90.0),))
    monkeypatch.setattr("sau_scan.estimate.estimate", lambda *_: told)
    result = invoke("detect", "m", "--dry-run", "-o", "a.json", "-o", "b.txt")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "a.json").read_text())["budgets"][0]["seconds"] == 90.0
    assert "1 min 30 s" in (tmp_path / "b.txt").read_text() and "1 min 30 s" in result.stdout
    assert "wrote" in result.stderr and core.calls == []


def test_outputs_take_their_format_from_the_ending(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("detect", "m", "-o", "a.json", "-o", "b.sarif", "-o", "c.txt").exit_code == 0
    assert json.loads((tmp_path / "a.json").read_text())["verdict"] == "clean"
    assert json.loads((tmp_path / "b.sarif").read_text())["version"] == "2.1.0"
    assert "CLEAN" in (tmp_path / "c.txt").read_text()
    assert {file.name for file in tmp_path.iterdir()} == {"a.json", "b.sarif", "c.txt"}


def test_detect_hands_its_options_on(core: Core, invoke: Invoke) -> None:
    words = [
        "--budget",
        "quick",
        "--max-time",
        "1h30m",
        "--min-coverage",
        "95%",
        "--seed",
        "7",
        "--device",
        "cuda",
        "--dtype",
        "float16",
        "--rules",
        "r",
        "--variant",
        "fp16",
        "--base",
        "b",
        "--revision",
        "v1",
        "--declared-trigger",
        "zebra",
        "--declared-trigger",
    ]
    invoke("detect", "m", *words, r"\u200b")
    [(_, (model, options, _progress))] = core.calls
    assert model == Path("m")
    assert options == ScanOptions(
        budget=Budget.QUICK,
        max_time=5400.0,
        min_coverage=0.95,
        declared_triggers=("zebra", "\u200b"),
        seed=7,
        device="cuda",
        dtype="float16",
        rules=Path("r"),
        variant="fp16",
        base=Path("b"),
        revision="v1",
        offline=False,
    )


def test_fix_hands_its_options_on(core: Core, invoke: Invoke) -> None:
    words = [
        "--out",
        "o",
        "--slot",
        "replace",
        "--slot",
        "suffix",
        "--replaces",
        "o",
        "--keep-failed",
        "--method",
        "text_encoder",
        "--seed",
        "3",
    ]
    result = invoke("fix", "m", "--trigger", r"\u043e", "--trigger", "zebra", *words)
    assert result.exit_code == 0, result.output
    [(_, (model, options, report, _progress))] = core.calls
    assert (model, report) == (Path("m"), None)
    assert options == FixOptions(
        out=Path("o"),
        triggers=(Trigger(text="\u043e", slot=Slot.REPLACE, replaces="o"), Trigger(text="zebra", slot=Slot.SUFFIX)),
        keep_failed=True,
        method="text_encoder",
        scan=ScanOptions(seed=3, offline=False),
    )


def test_fix_takes_a_report_of_detect_only(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text(render_json(samples.BACKDOORED))
    (tmp_path / "fix.json").write_text(render_json(samples.REPAIRED))
    assert invoke("fix", "m", "--out", "o", "--from", "scan.json").exit_code == 0
    assert core.calls[0][1][2] == samples.BACKDOORED
    result = invoke("fix", "m", "--out", "o", "--from", "fix.json")
    assert result.exit_code == 2
    assert "report of a repair" in result.stderr


def test_detect_and_fix_print_one_json_document(core: Core, invoke: Invoke) -> None:
    core.scan = samples.BACKDOORED
    assert json.loads(invoke("detect", "m", "--fix", "--out", "o", "--format", "json").stdout)["command"] == "fix"


@FORMATS
@pytest.mark.parametrize("name", sorted(samples.ALL))
def test_report_makes_every_format_from_saved_json(invoke: Invoke, tmp_path: Path, name: str, format_: str) -> None:
    (tmp_path / "r.json").write_text(render_json(samples.ALL[name]))
    result = invoke("report", "r.json", "--format", format_, "-o", "again.json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "again.json").read_text() == render_json(samples.ALL[name])
    # Not the golden file: infinite numbers are null in JSON, so a hostile report says less after it was saved.
    render = next(known.render for known in ALL_FORMATS if known.name == format_)
    assert result.stdout == render(read_result(tmp_path / "r.json"))


def test_fix_scans_as_the_report_did_unless_told_otherwise(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    quick = samples.COVERAGE.model_copy(update={"budget": "quick"})
    (tmp_path / "r.json").write_text(render_json(samples.BACKDOORED.model_copy(update={"coverage": quick})), "utf-8")
    budgets = []
    for more in ((), ("--budget", "deep")):
        invoke("fix", "m", "--out", "x", "--from", "r.json", *more)
        budgets.append(core.calls[-1][1][1].scan.budget)
    assert budgets == [Budget.QUICK, Budget.DEEP]


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == "sau-scan 0.1.0\n"
