"""The command line around a replaced core: options, outputs, exit codes, errors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sau_scan.errors import DamagedFile, TriggerHasNoEffect, UnsafeFile, UsageError, WriteError
from sau_scan.estimate import BudgetEstimate, Estimate
from sau_scan.findings import FixResult, ScanResult, Skipped, Slot, Trigger
from sau_scan.options import Budget, FixOptions, ScanOptions
from sau_scan.reports import FORMATS as ALL_FORMATS
from sau_scan.reports import read_result, render_json
from tests.cli.conftest import Core, Invoke
from tests.reports import samples

FORMATS = pytest.mark.parametrize("format_", ["text", "json", "sarif"])


@FORMATS
@pytest.mark.parametrize(
    ("scan", "options", "code"),
    [
        (samples.CLEAN, (), 0),
        (samples.BACKDOORED, (), 1),
        (samples.BACKDOORED, ("--fail-on", "critical"), 1),
        (samples.BACKDOORED, ("--exit-zero",), 0),
        (samples.INCONCLUSIVE, (), 3),
        (samples.INCONCLUSIVE, ("--exit-zero",), 3),
        (samples.CLEAN, ("--min-coverage", "99"), 0),
        (samples.BACKDOORED, ("--exit-zero", "--min-coverage", "99"), 3),
        (samples.BACKDOORED, ("--min-coverage", "99"), 1),
    ],
)
def test_exit_codes_are_the_same_in_every_format(
    core: Core, invoke: Invoke, format_: str, scan: ScanResult, options: tuple[str, ...], code: int
) -> None:
    core.scan = scan
    result = invoke("detect", "suspect", "--format", format_, *options)
    assert result.exit_code == code, result.output
    assert f"exit {code}" in result.stderr


def test_findings_outrank_incompleteness(core: Core, invoke: Invoke) -> None:
    coverage = samples.COVERAGE.model_copy(update={"skipped": (Skipped(what="x", reason="y", planned=True),)})
    core.scan = samples.BACKDOORED.model_copy(update={"coverage": coverage})
    assert invoke("detect", "m").exit_code == 1
    assert invoke("detect", "m", "--exit-zero").exit_code == 3


def test_low_findings_pass_the_gate_unless_asked(core: Core, invoke: Invoke) -> None:
    core.scan = samples.BACKDOORED.model_copy(update={"findings": (samples.EDIT_FINDING,)})
    assert invoke("detect", "m").exit_code == 0
    assert invoke("detect", "m", "--fail-on", "low").exit_code == 1


def test_min_severity_hides_but_does_not_gate(core: Core, invoke: Invoke) -> None:
    core.scan = samples.BACKDOORED.model_copy(update={"findings": (samples.FILE_FINDING,)})
    result = invoke("detect", "m", "--min-severity", "critical")
    assert result.exit_code == 1
    assert "nan-weights" not in result.stdout


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


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("detect", "m", "-o", "a.html"), 2, "names no report format"),
        (("detect", "m", "-o", "missing/a.json"), 3, "does not exist"),
        (("detect", "m", "-o", "m/a.json"), 2, "inside the model"),
        (("detect", "m", "--fix"), 2, "--fix and --out belong together"),
        (("detect", "m", "--out", "o"), 2, "--fix and --out belong together"),
        (("detect", "m", "--fix", "--out", "o", "--method", "zzz"), 2, "Unknown method"),
        (("detect", "m", "--method", "sau"), 2, "--method is about a repair"),
        (("detect", "m", "--keep-failed"), 2, "--keep-failed is about a repair"),
        (("detect", "m", "--dry-run", "--fix", "--out", "o"), 2, "--dry-run repairs nothing"),
        (("detect", "m", "--dry-run", "-o", "a.sarif"), 2, "no form in SARIF"),
        (("detect", "m", "--declared-trigger", ""), 2, "declared-trigger is empty"),
        (("detect", "m", "--max-time", "soon"), 2, "is not a time"),
        (("detect", "m", "--min-coverage", "lots"), 2, "is not a share"),
        (("detect", "m", "--budget", "huge"), 2, ""),
        (("detect",), 2, ""),
        (("fix", "m"), 2, "--out is missing"),
        (("fix", "m", "--out", "o", "--slot", "prefix"), 2, "there is none"),
        (("fix", "m", "--out", "o", "--trigger", "x", "--from", "r.json"), 2, "exclude each other"),
        (("fix", "m", "--out", "o", "--trigger", "x"), 2, "Add --slot"),
        (("fix", "m", "--out", "o", "--from", "r.json"), 2, "cannot be read"),
        (("report", "missing.json"), 2, "cannot be read"),
        (("rules", "show", "nothing"), 2, "There is no rule"),
        (("rules", "show", ""), 2, "There is no rule ''."),
        (("rules", "list", "--rules", "missing"), 2, "missing does not exist"),
        (("rules", "list", "--rules", "m"), 2, "m holds no rules"),
        (("rules", "list", "--rules", "loose.yaml"), 2, "is no folder of rules, but a file"),
        (("report", "pipe.json"), 2, "pipe.json is not a regular file"),
        (("fix", "m", "--out", "o", "--from", "pipe.json"), 2, "pipe.json is not a regular file"),
        (("detect", "m", "-o", "pipe.json"), 2, "--output pipe.json is not a regular file"),
    ],
)
def test_what_cannot_work_fails_before_the_scan(
    core: Core, invoke: Invoke, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "loose.yaml").touch()
    os.mkfifo(tmp_path / "pipe.json")
    result = invoke(*words)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert core.calls == []


@pytest.mark.parametrize("words", [("m", "--base", ""), ("",), ("hf.co/org",), ("m", "--base", "ftp://x/y")])
def test_a_name_that_is_no_model_is_told_without_the_type_of_an_error(invoke: Invoke, words: tuple[str, ...]) -> None:
    result = invoke("detect", *words)
    assert result.exit_code == 2 and "Value error" not in result.stderr
    assert ("'--base'" if "--base" in words else "'MODEL'") in result.stderr


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


@pytest.mark.parametrize(
    ("repair", "words", "code"),
    [
        (samples.REPAIRED, ("--out", "o"), 0),
        (samples.NOT_PUBLISHED, ("--out", "o"), 1),
        (samples.NOTHING, ("--out", "o"), 0),
        (samples.NOTHING.model_copy(update={"before": samples.INCONCLUSIVE}), ("--out", "o"), 3),
        (samples.DRY_RUN, ("--dry-run",), 0),
        (samples.DRY_RUN.model_copy(update={"repair": None}), ("--dry-run",), 1),
        (TriggerHasNoEffect("no effect", hint="Check it."), ("--out", "o"), 2),
        (WriteError("disk full", hint="Free some."), ("--out", "o"), 3),
    ],
)
def test_exit_codes_of_fix(
    core: Core, invoke: Invoke, repair: FixResult | BaseException, words: tuple[str, ...], code: int
) -> None:
    core.repair = repair
    assert invoke("fix", "m", *words).exit_code == code


@pytest.mark.parametrize(
    ("scan", "repair", "options", "code"),
    [
        (samples.BACKDOORED, samples.REPAIRED, (), 0),
        (samples.BACKDOORED, samples.NOT_PUBLISHED, (), 1),
        (samples.BACKDOORED, samples.REPAIRED.model_copy(update={"after": samples.INCONCLUSIVE}), (), 3),
        (samples.BACKDOORED, samples.NOTHING.model_copy(update={"before": samples.BACKDOORED}), (), 1),
        (samples.CLEAN, samples.NOTHING, (), 0),
    ],
)
def test_detect_and_fix_exit_by_the_re_scan(
    core: Core, invoke: Invoke, scan: ScanResult, repair: FixResult, options: tuple[str, ...], code: int
) -> None:
    core.scan, core.repair = scan, repair
    result = invoke("detect", "m", "--fix", "--out", "o", "-o", "r.json", *options)
    assert result.exit_code == code, result.output
    assert [name for name, _ in core.calls] == ["detect", "fix"]
    assert json.loads(Path("r.json").read_text())["command"] == "fix"


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


def test_an_expected_error_is_one_paragraph(core: Core, invoke: Invoke) -> None:
    core.scan = DamagedFile("m/unet.safetensors ends after 3 of 9 bytes.", hint="Download it again.")
    result = invoke("detect", "m")
    assert result.exit_code == 3
    assert result.stderr == ("error: m/unet.safetensors ends after 3 of 9 bytes.\n       Download it again.\nexit 3\n")
    assert result.stdout == ""


def test_a_model_that_cannot_be_scanned_still_has_a_report(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    """A later step of a pipeline uploads it, whatever came of the scan."""
    core.scan = DamagedFile("It is cut short.", hint="Download it again.")
    result = invoke("detect", "m", "--output", "r.sarif", "--output", "r.json", "--format", "json")
    assert result.exit_code == 3
    assert read_result(tmp_path / "r.json") == samples.INCONCLUSIVE
    assert json.loads(result.stdout)["verdict"] == "inconclusive"
    assert (tmp_path / "r.sarif").exists()
    assert invoke("detect", "m").stdout == ""


def test_a_mistake_that_the_files_showed_has_a_report(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    mistake = UsageError("The base does not fit.", hint="Name another.")
    core.scan = core.repair = mistake
    assert invoke("detect", "m", "--output", "r.json").exit_code == 2
    assert invoke("fix", "m", "--out", "o", "--output", "r.json").exit_code == 2
    assert not (tmp_path / "r.json").exists()
    mistake.partial = samples.INCONCLUSIVE
    assert invoke("detect", "m", "--output", "r.json").exit_code == 2
    assert read_result(tmp_path / "r.json") == samples.INCONCLUSIVE
    assert invoke("fix", "m", "--out", "o", "--output", "r.json").exit_code == 2
    told = read_result(tmp_path / "r.json")
    assert isinstance(told, FixResult) and told.before == samples.INCONCLUSIVE and "does not fit" in told.reason


def test_a_model_that_cannot_be_repaired_still_has_a_report(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    core.repair = UnsafeFile("model holds a pickle.", hint="Get safetensors.")
    result = invoke("fix", "model", "--out", "o", "--output", "r.json", "--format", "json")
    assert result.exit_code == 3
    assert "error: model holds a pickle." in result.stderr
    told = read_result(tmp_path / "r.json")
    assert isinstance(told, FixResult)
    assert (told.before, told.published) == (samples.INCONCLUSIVE, None)
    assert "a pickle. Get safetensors." in told.reason
    assert json.loads(result.stdout)["reason"] == told.reason
    assert invoke("fix", "model", "--out", "o").stdout == ""


def test_what_was_found_is_reported_where_the_repair_cannot_be_written(
    core: Core, invoke: Invoke, tmp_path: Path
) -> None:
    core.scan, core.repair = samples.BACKDOORED, WriteError("The disk is full.", hint="Free some space.")
    assert invoke("detect", "model", "--fix", "--out", "o", "--output", "r.json").exit_code == 3
    told = read_result(tmp_path / "r.json")
    assert isinstance(told, FixResult)
    assert told.before == samples.BACKDOORED and "disk is full" in told.reason


def test_nothing_to_repair_is_no_success_where_not_all_was_looked_at(core: Core, invoke: Invoke) -> None:
    """A model with bad weights is suspicious, and was not scanned."""
    coverage = samples.COVERAGE.model_copy(update={"skipped": (Skipped(what="model", reason="NaN", planned=True),)})
    before = samples.BACKDOORED.model_copy(update={"findings": (samples.FILE_FINDING,), "coverage": coverage})
    core.repair = FixResult(tool_version="0", before=before, reason="none", nothing_to_repair=True)
    assert invoke("fix", "m", "--out", "x").exit_code == 3


def test_a_gate_that_is_not_met_says_why_even_if_quiet(core: Core, invoke: Invoke) -> None:
    core.scan = samples.BACKDOORED
    result = invoke("detect", "m", "--exit-zero", "--min-coverage", "99", "--quiet")
    assert result.exit_code == 3
    assert "under --min-coverage 99" in result.stderr
    assert invoke("detect", "m", "--exit-zero", "--quiet").stderr == ""


def test_fix_scans_as_the_report_did_unless_told_otherwise(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    quick = samples.COVERAGE.model_copy(update={"budget": "quick"})
    (tmp_path / "r.json").write_text(render_json(samples.BACKDOORED.model_copy(update={"coverage": quick})), "utf-8")
    budgets = []
    for more in ((), ("--budget", "deep")):
        invoke("fix", "m", "--out", "x", "--from", "r.json", *more)
        budgets.append(core.calls[-1][1][1].scan.budget)
    assert budgets == [Budget.QUICK, Budget.DEEP]


def test_an_unexpected_error_is_one_paragraph_unless_debugged(core: Core, invoke: Invoke) -> None:
    core.scan = RuntimeError(f"boom {samples.HOSTILE}")
    result = invoke("detect", "m")
    assert result.exit_code == 4
    assert "internal error: RuntimeError: boom" in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr
    debugged = invoke("detect", "m", "--debug")
    assert debugged.exit_code == 4
    assert "Traceback" in debugged.stderr
    assert "\x1b" not in debugged.stderr


def test_an_interrupt_is_one_line(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    core.scan = KeyboardInterrupt()
    result = invoke("detect", "m", "-o", "r.json")
    assert result.exit_code == 130
    assert result.stderr.strip().splitlines() == [
        "interrupted: nothing was left half-written, and the input is untouched.",
        "exit 130",
    ]
    assert list(tmp_path.iterdir()) == []


def test_out_of_memory_is_no_bug(core: Core, invoke: Invoke) -> None:
    core.scan = MemoryError()
    assert invoke("detect", "m").exit_code == 3


def test_rules_are_listed_and_shown_escaped(invoke: Invoke) -> None:
    listed = invoke("rules", "list")
    assert listed.exit_code == 0
    assert "invisible/zero-width" in listed.stdout
    shown = invoke("rules", "show", "invisible/zero-width").stdout
    assert '"\\u200b"   U+200B ZERO WIDTH SPACE' in shown
    assert "\u200b" not in shown
    assert invoke("rules", "show", "zero-width").stdout == shown


def test_rules_about_files_are_listed_and_shown_with_what_to_do(invoke: Invoke) -> None:
    assert "file/pickle-danger" in invoke("rules", "list").stdout
    shown = invoke("rules", "show", "file/pickle-danger").stdout
    assert "nothing is loaded" in shown and "os.system behind REDUCE" in shown
    assert invoke("rules", "show", "pickle-danger").stdout == shown


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == "sau-scan 0.1.0\n"
