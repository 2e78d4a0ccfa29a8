"""Exit codes: what fails a pipeline and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sau_scan.errors import TriggerHasNoEffect, WriteError
from sau_scan.findings import FixResult, ScanResult, Skipped
from tests.cli.conftest import FORMATS, Core, Invoke
from tests.reports import samples


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
