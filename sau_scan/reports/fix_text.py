"""The report of a repair, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sau_scan.findings import (
    Check,
    Component,
    FixResult,
    Kind,
    Location,
    RepairStep,
    RepairSummary,
    ScanResult,
    Severity,
    Trigger,
    shown,
)
from sau_scan.reports.layout import WIDTH, cells, field, header
from sau_scan.reports.scan_text import component_name, scan_parts
from sau_scan.reports.words import cost_text, count, model_words, number, percent, place, quoted, safe

_TENSORS_SHOWN = 40


def fix_parts(result: FixResult, min_severity: Severity = Severity.INFO) -> Iterator[RenderableType]:
    """Plan, checks, outcome, before and after; then the report of the scan that the outcome rests on."""
    model = result.before.model if result.before is not None else None
    yield header(f"sau-scan {result.tool_version}", *(model_words(model) if model else ()))
    if result.repair is not None:
        yield from _repair(result.repair, in_detail=result.dry_run)
    if result.verification is not None:
        yield field("verify", _checks(result.verification.checks))
    yield _outcome(result)
    if result.after is not None:
        yield _comparison(result)
    final = result.after if result.after is not None else result.before
    if final is not None:
        yield Text()
        yield Text("scan after the repair" if result.after is not None else "scan", "bold")
        yield from scan_parts(final, min_severity)


def _repair(repair: RepairSummary, *, in_detail: bool) -> Iterator[RenderableType]:
    yield field("located", safe(repair.located))
    for step in repair.steps:
        target = f" against {quoted(step.trigger)} {place(step.trigger)}" if step.trigger else ""
        note = f" · {safe(step.note)}" if step.note else ""
        change = f", moved by {percent(step.relative_change)}" if step.relative_change else ""
        yield field(
            "repair",
            f"{safe(step.method)} on {_parts(step)}{target}{change}{note}",
        )
        if in_detail:
            yield from _tensors(step.tensors)
    yield field("cost", cost_text(repair.cost))


def _parts(step: RepairStep) -> str:
    if step.component is Component.FILE:
        return count(len(step.tensors), "file")
    kind = "tensor" if any(place.tensor for place in step.tensors) else "file"
    return f"{count(len(step.tensors), kind)} of the {component_name(step.component)}"


def _tensors(tensors: tuple[Location, ...]) -> Iterator[RenderableType]:
    """Each file once, its tensors beneath it."""
    for file in dict.fromkeys(tensor.path for tensor in tensors):
        names = [safe(tensor.tensor or "all of it") for tensor in tensors if tensor.path == file]
        yield field("", shown(file))
        for name in names[:_TENSORS_SHOWN]:
            yield field("", f"  {name}")
        if len(names) > _TENSORS_SHOWN:
            yield field("", f"  and {len(names) - _TENSORS_SHOWN:,} more; --format json lists all")


def _checks(checks: tuple[Check, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for name in ("before", "after", "limit"):
        table.add_column(name, justify="right", no_wrap=True, header_style="dim")
    for check in checks:
        note = f" ({safe(check.note)})" if check.note else ""
        mark = Text("✓ passed", "green") if check.passed else Text("✗ FAILED", "bold red")
        values = (number(value) if value is not None else "" for value in (check.before, check.after, check.limit))
        table.add_row(mark, *cells(safe(check.name) + note, *values))
    return table


def _outcome(result: FixResult) -> Panel:
    word, style, rest = _outcome_words(result)
    return Panel(
        Text.assemble((word, style), " ", rest, overflow="fold"), box=box.ROUNDED, border_style=style, width=WIDTH - 4
    )


def _outcome_words(result: FixResult) -> tuple[str, str, str]:
    reason = safe(result.reason)
    if result.published is not None:
        return "REPAIRED", "bold green", f"and published: {shown(result.published)}" + (f"; {reason}" if reason else "")
    if result.nothing_to_repair and result.before is not None and not result.before.complete:
        return "INCONCLUSIVE", "yellow", "  no trigger was found by a scan that did not look at all that was asked for"
    if result.nothing_to_repair:
        return "NOTHING TO REPAIR", "green", "  " + (reason or "no trigger was found")
    if result.dry_run and result.repair is not None and result.repair.steps:
        return "PLANNED", "cyan", "  nothing was written; run it without --dry-run to repair"
    return "NOT PUBLISHED", "bold red", "  " + (reason or "the repair did not pass its verification")


def _comparison(result: FixResult) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", width=11)
    table.add_column("before", overflow="fold")
    table.add_column("after", overflow="fold")
    table.add_row(*cells("  verdict", _verdict(result.before), _verdict(result.after)))
    table.add_row(*cells("  triggers", _triggers(result.before), _triggers(result.after)))
    if result.repair is not None:
        repair = result.repair
        files = count(repair.files_identical + len(repair.files_changed), "file")
        tensors = f"{repair.tensors_changed:,} of {count(repair.tensors_total, 'tensor')}"
        table.add_row(*cells("  changed", "–", f"{tensors}; {repair.files_identical} of {files} byte-identical"))
    return table


def _verdict(scan: ScanResult | None) -> str:
    return "not scanned" if scan is None else str(scan.verdict)


def _triggers(scan: ScanResult | None) -> str:
    if scan is None:
        return "–"
    found: list[Trigger] = [
        f.trigger
        for f in scan.findings
        if f.trigger is not None and f.kind is Kind.TRIGGER and f.severity.rank >= Severity.HIGH.rank
    ]
    return ", ".join(f"{quoted(trigger)} {place(trigger)}" for trigger in found[:3]) or "none"
