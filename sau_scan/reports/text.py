"""The report for people: 80 columns suffice, colour never carries meaning alone, no text of the model is shown raw."""

from __future__ import annotations

import io

from rich.console import Console, Group, RenderableType

from sau_scan.findings import FixResult, ScanResult, Severity
from sau_scan.reports.fix_text import fix_parts
from sau_scan.reports.layout import WIDTH
from sau_scan.reports.scan_text import scan_parts


def render_text(result: ScanResult | FixResult) -> str:
    """The report without colour, 80 columns wide, ready for a file."""
    return plain(build(result))


def plain(content: RenderableType) -> str:
    """What a terminal would show, as :func:`render_text`."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, no_color=True, legacy_windows=False)
    with console.capture() as capture:
        # Only commands to paste are ever wider; they must not be cut off.
        console.print(content, crop=False)
    # Padding is for terminals; in a file it is noise.
    return "".join(row.rstrip() + "\n" for row in capture.get().splitlines())


def build(result: ScanResult | FixResult, *, min_severity: Severity = Severity.INFO) -> Group:
    """The report as a rich renderable. Findings below ``min_severity`` are counted, not shown."""
    if isinstance(result, FixResult):
        return Group(*fix_parts(result, min_severity))
    return Group(*scan_parts(result, min_severity))
