"""Every entry below a folder, whatever it is, with nothing followed and nothing opened but regular files."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sau_scan.checkpoint.files import belongs
from sau_scan.findings import Severity, escape
from sau_scan.static.facts import Fact

MOST_ENTRIES = 20_000
MOST_DEPTH = 24


@dataclass(frozen=True)
class Place:
    """``relpath`` below the root, with slashes; ``target``: where a link leads, as it is written."""

    relpath: str
    mode: int
    size: int
    target: str | None = None


def walk(root: Path) -> Iterator[Place]:
    """Depth first, by name; at most MOST_ENTRIES. Folders that cannot be listed are passed over."""
    waiting = [("", 0)]
    seen = 0
    while waiting and seen < MOST_ENTRIES:
        prefix, depth = waiting.pop()
        try:
            with os.scandir(root / prefix) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in ordered[: MOST_ENTRIES - seen]:
            seen += 1
            place = _place(entry, prefix + entry.name)
            if place is None:
                continue
            yield place
            if stat.S_ISDIR(place.mode) and depth < MOST_DEPTH:
                waiting.append((place.relpath + "/", depth + 1))


def regular_files(root: Path) -> list[str]:
    """All regular files below ``root``, and links to such as long as they stay within."""
    real_root = root.resolve()
    return [
        place.relpath
        for place in walk(root)
        if stat.S_ISREG(place.mode) or (place.target is not None and _within(root / place.relpath, real_root))
    ]


def blob_size(root: Path, real_root: Path, place: Place) -> int | None:
    """The bytes of the file outside of ``root`` that a link stands for, as in the hub's cache; None for all else."""
    if place.target is None or not _within(root / place.relpath, real_root):
        return None
    target = (root / place.relpath).resolve()
    return None if target.is_relative_to(real_root) else target.stat().st_size


def _within(link: Path, real_root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return False
    return belongs(target, real_root) and target.is_file()


def _place(entry: os.DirEntry[str], relpath: str) -> Place | None:
    try:
        found = entry.stat(follow_symlinks=False)
        target = str(Path(entry.path).readlink()) if stat.S_ISLNK(found.st_mode) else None
    except OSError:
        return None
    return Place(relpath, found.st_mode, found.st_size, target)


def open_regular(path: Path) -> BinaryIO:
    """A regular file, unbuffered by tricks: links are followed once, pipes and devices are refused. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return os.fdopen(descriptor, "rb")


def check_places(root: Path, places: list[Place]) -> Iterator[tuple[str, Fact]]:
    """What the names and kinds of the entries themselves give away, each with the path it is about."""
    real_root = root.resolve()
    for place in places:
        if place.target is not None:
            yield from _link(root, real_root, place)
        elif not stat.S_ISREG(place.mode) and not stat.S_ISDIR(place.mode):
            kind = "a pipe" if stat.S_ISFIFO(place.mode) else "a device or a socket"
            yield place.relpath, Fact("special-file", f"It is {kind}; reading it could hang or reach elsewhere.")
        if not place.relpath.isprintable() or "\\" in place.relpath:
            yield place.relpath, Fact("odd-name", f"Its name is {escape(place.relpath)[:120]}.")
        if stat.S_ISDIR(place.mode) and place.relpath.count("/") >= MOST_DEPTH:
            yield (
                place.relpath,
                Fact("analyser-failed", "Folders are nested too deep; this one was not looked into."),
            )
    if len(places) >= MOST_ENTRIES:
        yield (
            ".",
            Fact("analyser-failed", f"There are more than {MOST_ENTRIES:,} entries; not all were looked at."),
        )
    yield from _colliding(places)


def _link(root: Path, real_root: Path, place: Place) -> Iterator[tuple[str, Fact]]:
    shown = escape(place.target or "")[:120]
    try:
        inside = belongs((root / place.relpath).resolve(strict=True), real_root)
    except (OSError, RuntimeError, ValueError):
        yield place.relpath, Fact("special-file", f"It is a link to {shown}, which leads nowhere or in a circle.")
        return
    if inside and (root / place.relpath).is_dir():
        yield place.relpath, Fact("special-file", f"It is a link to the folder {shown}.", Severity.LOW)
    if not inside:
        yield (
            place.relpath,
            Fact(
                "link-outside",
                "Whoever loads this checkpoint reads a file outside of it; the link was not followed.",
            ),
        )


def _colliding(places: list[Place]) -> Iterator[tuple[str, Fact]]:
    by_name: dict[str, list[str]] = defaultdict(list)
    for place in places:
        by_name[place.relpath.casefold()].append(place.relpath)
    for names in by_name.values():
        if len(names) > 1:
            shown = escape(names[0])[:80]
            yield (
                names[1],
                Fact("odd-name", f"Where upper and lower case are the same, it takes the place of {shown}."),
            )
