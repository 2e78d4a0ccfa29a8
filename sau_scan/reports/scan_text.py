"""The report of a scan, for people: the verdict in a box, each finding, what came closest, the coverage."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sau_scan.findings import Evidence, Finding, Kind, ScanResult, Severity, Trigger, Verdict, shown
from sau_scan.reports.coverage_text import coverage_lines, file_lines
from sau_scan.reports.heat_map import HeatMapView, strongest
from sau_scan.reports.layout import LABEL_WIDTH, WIDTH, cells, field, header, line, styled
from sau_scan.reports.words import command, count, describe, model_words, number, place, quoted, safe, size

VERDICT_STYLES = {
    Verdict.CLEAN: "green",
    Verdict.SUSPICIOUS: "yellow",
    Verdict.BACKDOORED: "bold red",
    Verdict.INCONCLUSIVE: "magenta",
}
_SEVERITY_STYLES = {
    Severity.CRITICAL: "bold white on red",
    Severity.HIGH: "bold red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "dim",
}


def scan_parts(result: ScanResult, min_severity: Severity = Severity.INFO) -> Iterator[RenderableType]:
    """The parts of the report of a scan, top to bottom."""
    yield header(
        f"sau-scan {result.tool_version}",
        *model_words(result.model),
        f"{count(len(result.model.files), 'file')}, {size(sum(file.size for file in result.model.files))}",
        f"seed {result.coverage.seed}",
        result.coverage.budget,
    )
    yield banner(result)
    shown = [finding for finding in result.findings if finding.severity.rank >= min_severity.rank]
    for finding in shown:
        yield from finding_parts(finding)
    hidden = len(result.findings) - len(shown)
    if hidden:
        yield line(f" {count(hidden, 'finding')} below {min_severity} not shown", "dim")
        yield Text()
    if result.near_miss is not None:
        miss = result.near_miss
        yield field(
            "closest",
            f"{quoted(miss.trigger)} {place(miss.trigger)} came nearest without being reported: "
            f"{safe(miss.detector)} {number(miss.value)}, the line is at {number(miss.line)}",
        )
    yield from coverage_lines(result.coverage)
    yield from file_lines(result.model)


def banner(result: ScanResult) -> Panel:
    """The verdict in a box: the word, then what it rests on."""
    style = VERDICT_STYLES[result.verdict]
    text = Text.assemble((result.verdict.upper(), style), "   ", verdict_sentence(result))
    return Panel(text, box=box.ROUNDED, border_style=style, width=min(WIDTH, 76))


def verdict_sentence(result: ScanResult) -> str:
    ran = sum(run.ran for run in result.coverage.detectors)
    if result.verdict is Verdict.CLEAN:
        by = f"by {count(ran, 'detector')} over the coverage below"
        noted = f"; {count(len(result.findings), 'finding')} of note"
        return f"no trigger found {by}{noted}" if result.findings else f"nothing found {by}"
    if result.verdict is Verdict.INCONCLUSIVE:
        missing = [safe(skipped.reason) for skipped in result.coverage.skipped if skipped.planned]
        if not missing:
            return "looked at a smaller share of all candidates than was asked for"
        return f"could not look at all that was planned: {missing[0]}"
    triggers = [f for f in result.findings if f.kind is Kind.TRIGGER and f.severity.rank >= Severity.HIGH.rank]
    if not triggers:
        return (
            f"{count(len(result.findings), 'finding')}, the strongest: {safe(result.findings[0].title)}"
            if (result.findings)
            else "see the coverage below"
        )
    sure = "confirmed" if any(f.severity is Severity.CRITICAL for f in triggers) else "suspected"
    where = ", ".join(dict.fromkeys(component_name(f.component) for f in triggers))
    return f"{count(len(triggers), 'trigger')} {sure} in the {where}"


def component_name(component: str) -> str:
    names = {"unet": "UNet", "vae": "VAE"}
    return names.get(component, component.replace("_", " "))


def finding_parts(finding: Finding) -> Iterator[RenderableType]:
    """One finding: title row, trigger, what it does, evidence, place, next step."""
    title = Table.grid(expand=True)
    title.add_column(ratio=1, overflow="fold")
    title.add_column(justify="right", overflow="fold", max_width=36)
    name = Text.assemble(
        " ", styled(f" {finding.severity} ", _SEVERITY_STYLES[finding.severity]), "  ", (safe(finding.title), "bold")
    )
    if finding.declared:
        name.append("  (declared)", "dim")
    title.add_row(name, Text(safe(finding.id), "dim"))
    yield title
    if finding.trigger is not None:
        yield from _trigger_fields(finding.trigger)
    if finding.location is not None:
        tensor = f" · tensor {safe(finding.location.tensor)}" if finding.location.tensor else ""
        base = f" · of the base {shown(finding.location.base)}" if finding.location.base is not None else ""
        yield field("file", shown(finding.location.path) + tensor + base, indent=2)
    if finding.behaviour:
        yield field("does", safe(finding.behaviour), indent=2)
    yield field("confidence", f"{finding.confidence} · lives in the {component_name(finding.component)}", indent=2)
    if finding.evidence:
        yield field("evidence", _evidence_table(finding.evidence), indent=2)
    if finding.heat_map is not None and finding.heat_map.rows:
        caption = f"{safe(finding.heat_map.title)}, strongest: {strongest(finding.heat_map.rows)}"
        yield field("where", Group(Text(caption), HeatMapView(finding.heat_map)), indent=2)
    if finding.pictures:
        yield field("pictures", "  ".join(map(safe, finding.pictures)), indent=2)
    if finding.next_step:
        # On one line however long: it is there to be pasted.
        words = Text.assemble((f"{'  next':<{2 + LABEL_WIDTH}}", "dim"), (command(finding.next_step), "bold"))
        words.no_wrap, words.overflow = True, "ignore"
        yield words
    yield Text()


def _trigger_fields(trigger: Trigger) -> Iterator[RenderableType]:
    yield field("trigger", describe(trigger), indent=2)
    for part in trigger.parts:
        yield field("with", describe(part), indent=2)


def _evidence_table(evidence: tuple[Evidence, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold", min_width=16)
    table.add_column("this", justify="right", no_wrap=True, header_style="dim")
    table.add_column("neutral words", header_style="dim")
    table.add_column("p", no_wrap=True, header_style="dim")
    for item in evidence:
        name = safe(item.name) + (f" ({safe(item.note)})" if item.note else "")
        p_value = "" if item.p_value is None else number(item.p_value)
        table.add_row(*cells(name, number(item.value), _null(item), p_value))
    return table


def _null(item: Evidence) -> str:
    if item.null_median is None:
        return "" if item.null_high is None else f"up to {number(item.null_high)}"
    low, high = (None if v is None else number(v) for v in (item.null_low, item.null_high))
    ends = f"{low} to {high}" if low and high else f"up to {high}" if high else f"from {low}" if low else ""
    return number(item.null_median) + (f" ({ends})" if ends else "")
