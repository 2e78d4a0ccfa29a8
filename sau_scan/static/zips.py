"""The directory of a zip archive, read by hand: readers differ in which of its two tables they trust, so both are."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sau_scan.checkpoint.downloads import ZIP_END, ZIP_END_SIZE, Ends, ends_of, zip_end
from sau_scan.static.content import WHOLE, Content
from sau_scan.static.facts import Unfinished

END64, LOCATOR = b"PK\x06\x06", b"PK\x06\x07"
CENTRAL, LOCAL, DESCRIPTOR = b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"
MOST_ENTRIES = 100_000
MOST_DIRECTORY = 32 * 2**20
MOST_NAME = 4096  # bytes, as of a path on Linux: no program unpacks a longer one
MOST_NAMES = 16 * 2**20  # of all entries outside of the directory
SLACK = 4096  # bytes between entries that alignment explains
FULL16, FULL32 = 0xFFFF, 0xFFFF_FFFF


@dataclass(frozen=True)
class Entry:
    """``header``: where its local header is; ``begin``: where its bytes are, ``packed`` of them."""

    name: str
    header: int
    begin: int
    packed: int
    size: int
    crc: int
    method: int
    flags: int
    mode: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/") and self.size == 0


class End(NamedTuple):
    """A directory as the record behind it, at ``at``, announces it; its start may be negative."""

    entries: int
    size: int
    offset: int
    at: int

    @property
    def start(self) -> int:
        return self.at - self.size


@dataclass(frozen=True)
class Directory:
    """``problems``: sentences about what a reader could trip over or be led astray by."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]


def read_directory(content: Content) -> Directory:
    """Both tables of an archive. Raises Unfinished where it is larger than any real one."""
    problems: list[str] = []
    found = _end(content, problems)
    entries: list[Entry] = []
    if found is not None:
        base = found.start - found.offset
        entries = list(_central(content, found.start, found.size, base, problems))
        if len(entries) != found.entries:
            problems.append(f"Its directory announces {found.entries:,} entries and has {len(entries):,}.")
        if base:
            problems.append(f"{abs(base):,} bytes stand before the archive, or its directory points elsewhere.")
    problems += _between(content, entries)
    hidden = list(_hidden(content, entries))
    if hidden:
        problems.append(f"{len(hidden):,} entries are in the archive but not in its directory.")
    return Directory((*entries, *hidden), tuple(dict.fromkeys(problems)))


def _end(content: Content, problems: list[str]) -> End | None:
    last = ends_of(content.stream, content.size)
    tail, at = last.tail, zip_end(last.tail)
    if at < 0:
        problems.append("Its directory is missing.")
        return None
    if sum(_fits(tail, found) for found in _positions(tail, ZIP_END)) > 1:
        problems.append("It has two ends, and so two directories.")
    if not _fits(tail, at):
        problems.append("Bytes stand behind the archive.")
    found = _announced(content, last, at, problems)[0]
    if found.size > MOST_DIRECTORY:
        raise Unfinished(f"{content.shown} has a directory of {found.size:,} bytes")
    if found.start < 0:
        problems.append("Its directory is larger than the archive.")
        return None
    return found


def _announced(content: Content, last: Ends, at: int, problems: list[str]) -> list[End]:
    """What the end at ``at`` in the tail may mean: readers differ in whether, and where, they look for the record of a
    large directory."""
    tail = last.tail
    *_, count, size, offset, _comment = struct.unpack("<4H2LH", tail[at + 4 : at + ZIP_END_SIZE])
    plain, wide = End(count, size, offset, last.start + at), list[End]()
    if tail[max(0, at - 20) : at].startswith(LOCATOR):
        wide = _ends64(content, struct.unpack("<Q", tail[at - 12 : at - 4])[0], plain.at - 20)
        if not wide:
            problems.append("Its large directory is not where it says.")
        told = [pair for one in wide for pair in zip(plain[:3], one[:3], strict=True)]
        if len(wide) > 1 or any(narrow not in (FULL16, FULL32, full) for narrow, full in told):
            problems.append("Its two ends contradict each other.")
    return [*wide, plain]


def has_end(content: Content) -> bool:
    """Whether readers that look for the end first would take it for an archive with a directory."""
    last = ends_of(content.stream, content.size)
    for at in _positions(last.tail[: zip_end(last.tail) + len(ZIP_END)], ZIP_END):
        for end in _announced(content, last, at, []):
            if end.size and end.start >= 0 and content.read(end.start, 4) == CENTRAL:
                return True
    return False


def _positions(data: bytes, find: bytes) -> Iterator[int]:
    at = data.find(find)
    while at >= 0:
        yield at
        at = data.find(find, at + 1)


def _fits(tail: bytes, at: int) -> bool:
    """Whether a reader that takes the first end whose comment fits would take this one."""
    behind = len(tail) - at - ZIP_END_SIZE
    return behind >= 0 and behind == int.from_bytes(tail[at + 20 : at + ZIP_END_SIZE], "little")


def _ends64(content: Content, offset: int, latest: int) -> list[End]:
    """The record at ``offset``, where its locator says, and the one right before that, which is all that Python asks
    for."""
    found = list[End]()
    for at in dict.fromkeys((offset, latest - 56)):
        record = content.read(at, 56) if 0 <= at <= content.size else b""
        if record[:4] == END64 and len(record) == 56:
            entries, size, start = struct.unpack("<3Q", record[32:56])
            found.append(End(entries, size, start, at))
    return found


def _central(content: Content, start: int, size: int, base: int, problems: list[str]) -> Iterator[Entry]:
    table, at = content.read(start, size), 0
    for number in range(MOST_ENTRIES + 1):
        if at == len(table):
            return
        record = table[at : at + 46]
        if number == MOST_ENTRIES:
            raise Unfinished(f"{content.shown} has more than {MOST_ENTRIES:,} entries")
        if record[:4] != CENTRAL or len(record) < 46:
            problems.append("Its directory is damaged.")
            return
        fields = struct.unpack("<6H3L5H2L", record[4:])
        name_size, extra_size, comment_size = fields[9:12]
        name = table[at + 46 : at + 46 + name_size]
        extra = table[at + 46 + name_size : at + 46 + name_size + extra_size]
        at += 46 + name_size + extra_size + comment_size
        full, packed, offset = _wide(extra, (fields[8], fields[7], fields[15]))
        entry, wrong = _local(content, offset + base, name)
        if entry is None:
            problems.append("Its directory points to entries that are not there.")
            continue
        problems += wrong
        problems += _differences(entry, fields, packed, full)
        # fields: version made, needed, flags, method, time, date, crc, packed, size, 3 lengths, disk, 2 x attributes
        yield Entry(
            _text(name),
            entry.header,
            entry.begin,
            packed,
            full,
            fields[6],
            fields[3],
            fields[2] | entry.flags,
            fields[14] >> 16,
        )


def _wide(extra: bytes, narrow: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, packed size and offset, those from the zip64 field that are too large for the plain ones."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack("<2H", extra[at : at + 4])
        if kind == 1:
            field = extra[at + 4 : at + 4 + size]
            numbers = list(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            wide = [numbers.pop(0) if value == FULL32 and numbers else value for value in narrow]
            return wide[0], wide[1], wide[2]
        at += 4 + size
    return narrow


def _local(content: Content, at: int, name: bytes | None) -> tuple[Entry | None, list[str]]:
    """The entry as its own header has it; ``name`` is what the directory calls it. Raises Unfinished when the time is
    up, or for a name longer than any real one."""
    content.budget.check()
    record = content.read(at, 30) if 0 <= at <= content.size - 30 else b""
    if record[:4] != LOCAL:
        return None, []
    _, flags, method, _, _, crc, packed, size, name_size, extra_size = struct.unpack("<5H3L2H", record[4:])
    if name_size > MOST_NAME:
        raise Unfinished(f"{content.shown} has an entry with a name of {name_size:,} bytes")
    own = content.read(at + 30, name_size)
    if FULL32 in (size, packed):
        size, packed, _ = _wide(content.read(at + 30 + name_size, extra_size), (size, packed, 0))
    wrong = ["Its two tables give an entry two names."] if name is not None and own != name else []
    return Entry(_text(own), at, at + 30 + name_size + extra_size, packed, size, crc, method, flags, 0), wrong


def _differences(entry: Entry, fields: tuple[Any, ...], packed: int, size: int) -> list[str]:
    """What the two tables say differently; sizes may be left to a record behind the entry."""
    wrong = []
    if entry.method != fields[3] or (entry.flags ^ fields[2]) & 1:
        wrong.append("Its two tables give an entry two ways to be unpacked.")
    told = (entry.crc, entry.packed, entry.size)
    if told != (fields[6], packed, size) and not (entry.flags & 8 and not any(told)) and not entry.flags & 8:
        wrong.append("Its two tables give an entry two sizes or checksums.")
    if (entry.flags | fields[2]) & 0x2041:
        wrong.append("An entry is said to be encrypted.")
    return wrong


def _between(content: Content, entries: list[Entry]) -> list[str]:
    position, previous = 0, None
    for entry in sorted(entries, key=lambda one: one.header):
        if entry.header < position and previous is not None:
            return ["Its entries overlap."]
        if entry.begin + entry.packed > content.size:
            return ["An entry reaches beyond its end."]
        position, previous = entry.begin + entry.packed, entry
    return []


def _hidden(content: Content, entries: list[Entry]) -> Iterator[Entry]:
    """Entries that only their local headers know of, in the gaps between the others (or everywhere, without any).
    Raises Unfinished where there are more than in any real archive."""
    marks = names = 0
    for start, stop in _gaps(content, entries):
        found: list[Entry] = []
        for at in _marks(content, start, stop):
            entry, _wrong = _local(content, at, None)
            if entry is not None and entry.name and entry.begin <= stop:
                found.append(entry)
                names += len(entry.name)
            marks += 1
            if marks > MOST_ENTRIES or names > MOST_NAMES:
                raise Unfinished(f"{content.shown} has more than {marks - 1:,} entries outside its directory")
        yield from _ended(found, stop)


def _gaps(content: Content, entries: list[Entry]) -> Iterator[tuple[int, int]]:
    position = 0
    for begin, end in [*sorted((e.header, e.begin + e.packed) for e in entries), (content.size, content.size)]:
        yield position, begin
        position = max(position, end)


def _ended(found: list[Entry], stop: int) -> Iterator[Entry]:
    """One of unknown size reaches to the next."""
    places = [*(entry.header for entry in found), stop]
    for entry in found:
        behind = places[bisect_left(places, entry.begin)]
        yield replace(entry, packed=entry.packed or behind - entry.begin)


def _marks(content: Content, start: int, stop: int) -> Iterator[int]:
    """Where local headers seem to begin. Raises Unfinished when the time is up."""
    while stop - start >= 30:
        content.budget.check()
        gap = content.read(start, min(stop - start, WHOLE))
        for at in _positions(gap, LOCAL):
            yield start + at
        if len(gap) < WHOLE:
            return
        start += len(gap) - len(LOCAL) + 1  # a mark may lie across


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
