"""Vetting outside of a scan: one file of any kind, or a folder, read once and examined."""

from __future__ import annotations

from pathlib import Path

from sau_scan.findings import Finding, Skipped
from sau_scan.static.tree import regular_files
from sau_scan.static.watch import Watch


def vet_file(path: Path | str) -> list[Finding | Skipped]:
    """What is wrong with a file, or with a folder and the files in it. Nothing is loaded; never raises on content."""
    path = Path(path)
    watch = Watch.of(path)
    for relpath in [path.name] if watch.alone else regular_files(path):
        watch.read(relpath)
    return watch.results()
