"""Exit codes: the one place that decides them, from results and options alone.

0 passed · 1 findings at or above --fail-on, or not repaired · 2 usage · 3 could not look at all that was planned ·
4 internal error · 130 interrupted · 143 terminated. The same in every format. Findings outrank incompleteness.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from sau_scan.findings import SHARE, FixResult, ScanResult, Severity, Verdict
from sau_scan.reports.words import count, percent, safe


class Code(IntEnum):
    OK = 0
    FOUND = 1
    USAGE = 2
    INCOMPLETE = 3
    INTERNAL = 4
    INTERRUPTED = 130
    TERMINATED = 143


class Exit(NamedTuple):
    """A code and the words that say why."""

    code: Code
    reason: str


class Gate(NamedTuple):
    """When a scan fails. ``min_coverage``: share of all candidates, 0..1. ``exit_zero`` silences findings only."""

    fail_on: Severity = Severity.HIGH
    min_coverage: float = 0.0
    exit_zero: bool = False


def after_detect(result: ScanResult, gate: Gate) -> Exit:
    """The outcome of ``detect``."""
    above = [finding for finding in result.findings if finding.severity.rank >= gate.fail_on.rank]
    if above and not gate.exit_zero:
        return Exit(Code.FOUND, f"{count(len(above), 'finding')} at or above --fail-on {gate.fail_on}")
    covered, wanted = coverage(result), gate.min_coverage
    missing = [skipped for skipped in result.coverage.skipped if skipped.planned]
    if missing and missing[0].what != SHARE:
        return Exit(Code.INCOMPLETE, f"not carried out as planned: {safe(missing[0].what)}: {safe(missing[0].reason)}")
    if covered < wanted:
        words = f"coverage {percent(covered)} is under --min-coverage {percent(wanted)}; a larger --budget probes more"
        return Exit(Code.INCOMPLETE, words)
    if result.verdict is Verdict.INCONCLUSIVE:
        return Exit(Code.INCOMPLETE, "the scan is inconclusive")
    if above:
        return Exit(Code.OK, f"{count(len(above), 'finding')} at or above --fail-on {gate.fail_on}, but --exit-zero")
    return Exit(Code.OK, f"nothing at or above --fail-on {gate.fail_on}")


def after_fix(result: FixResult) -> Exit:
    """The outcome of ``fix``."""
    if result.published is not None:
        return Exit(Code.OK, "verified and published")
    if result.nothing_to_repair:
        if result.before is not None and not result.before.complete:
            return Exit(Code.INCOMPLETE, "nothing found by a scan that did not look at all that was asked for")
        return Exit(Code.OK, "nothing to repair")
    if result.dry_run and result.repair is not None and result.repair.steps:
        return Exit(Code.OK, "planned only (--dry-run)")
    return Exit(Code.FOUND, "not published")


def after_detect_and_fix(result: FixResult, gate: Gate) -> Exit:
    """The outcome of ``detect --fix``: the gate on the closing re-scan, if there is a repaired checkpoint."""
    if result.published is not None and result.after is not None:
        return after_detect(result.after, gate)
    if result.nothing_to_repair and result.before is not None:
        return after_detect(result.before, gate)
    return after_fix(result)


def after_demo(found: bool, result: FixResult) -> Exit:
    """The outcome of ``demo``: found, repaired, and the re-scan clean."""
    if not found:
        return Exit(Code.FOUND, "the embedded backdoor was not found")
    if result.published is None or result.after is None or result.after.verdict is not Verdict.CLEAN:
        return Exit(Code.FOUND, "the embedded backdoor was found, but not removed")
    return Exit(Code.OK, "found, repaired, and clean on re-scan")


def coverage(result: ScanResult) -> float:
    """Share of all candidates that was probed, 0..1; 0 where there was nothing to probe."""
    total = result.coverage.candidates_total
    return result.coverage.candidates_probed / total if total else 0.0
