"""Vetting outside of a scan: one file of any kind, or a folder, read once and examined."""

from __future__ import annotations

import stat
from pathlib import Path

from sau_scan.findings import Finding, Skipped
from sau_scan.static.tree import walk
from sau_scan.static.watch import Watch


def vet_file(path: Path | str) -> list[Finding | Skipped]:
    """What is wrong with a file, or with a folder and the files in it. Nothing is loaded; never raises on content."""
    path = Path(path)
    watch = Watch.of(path)
    for relpath in [path.name] if watch.alone else _files(path):
        watch.read(relpath)
    return watch.results()


def _files(root: Path) -> list[str]:
    """All regular files below ``root``, and links to such as long as they stay within."""
    real_root = root.resolve()
    return [
        place.relpath
        for place in walk(root)
        if stat.S_ISREG(place.mode) or (place.target is not None and _within(root / place.relpath, real_root))
    ]


def _within(link: Path, real_root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return False
    return target.is_relative_to(real_root) and target.is_file()
