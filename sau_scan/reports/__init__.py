"""Report formats: each is a function from a result to text, from the result alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sau_scan.findings import FixResult, ScanResult
from sau_scan.reports.json_report import read_result, render_json
from sau_scan.reports.sarif import render_sarif
from sau_scan.reports.text import render_text

__all__ = ["FORMATS", "Format", "read_result", "render_json", "render_sarif", "render_text"]


class Format(NamedTuple):
    """``name`` as given to ``--format``; ``ending`` of files in it."""

    name: str
    ending: str
    render: Callable[[ScanResult | FixResult], str]


FORMATS = (
    Format("text", ".txt", render_text),
    Format("json", ".json", render_json),
    Format("sarif", ".sarif", render_sarif),
)
