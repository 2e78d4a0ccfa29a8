"""Vetting outside of a scan: one file of any kind, or a folder, read once and examined."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from sau_scan.findings import Finding, Skipped
from sau_scan.static.facts import Fact
from sau_scan.static.inspection import failed
from sau_scan.static.tree import open_regular, walk
from sau_scan.static.watch import Watch

CHUNK = 4 * 2**20
MOST_BYTES = 64 * 2**30  # a sparse file can claim any size


def vet_file(path: Path | str) -> list[Finding | Skipped]:
    """What is wrong with a file, or with a folder and the files in it. Nothing is loaded; never raises on content."""
    path = Path(path)
    if path.is_dir():
        return vet_folder(path)
    watch = Watch(path.parent, alone=True)
    _feed(watch, path.name)
    return watch.results()


def vet_folder(root: Path) -> list[Finding | Skipped]:
    """All regular files below ``root``, links that stay within included."""
    watch = Watch(root)
    real_root = root.resolve()
    for place in walk(root):
        if stat.S_ISREG(place.mode) or (place.target is not None and _within(root / place.relpath, real_root)):
            _feed(watch, place.relpath)
    return watch.results()


def _within(link: Path, real_root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return False
    return target.is_relative_to(real_root) and target.is_file()


def _feed(watch: Watch, relpath: str) -> None:
    """Reads one file into the watch, hashing it on the way."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    try:
        with open_regular(watch.root / relpath) as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size > MOST_BYTES:
                watch.note(relpath, [Fact("analyser-failed", f"It claims {size:,} bytes, and was not read.")])
                return
            sink = watch.begin(relpath, size)
            while count := file.readinto(buffer):  # type: ignore[attr-defined]
                digest.update(buffer[:count])
                sink.update(buffer[:count])
            sink.end(digest.hexdigest())
    except OSError as error:
        watch.note(relpath, [failed("bytes", error)])
