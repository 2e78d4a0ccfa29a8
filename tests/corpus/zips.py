"""Zip archives written by hand, so that they can lie."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from tests.corpus.opcodes import evil


@dataclass(frozen=True)
class Entry:
    """One file of a zip. What is said twice in a zip is told apart here: ``local_*`` is before the data."""

    name: str
    data: bytes
    deflate: bool = False
    local_name: str | None = None
    flags: int = 0
    local_flags: int = 0
    crc: int | None = None
    size: int | None = None
    """What the directory claims that the data unpacks to."""
    offset: int | None = None
    """What the directory claims as the place of the local header."""
    mode: int = 0o100644
    method: int | None = None
    listed: bool = True
    """Whether the directory knows the entry."""
    stored: bool = True
    """Whether the entry itself is there."""


def _packed(entry: Entry) -> bytes:
    if not entry.deflate:
        return entry.data
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(entry.data) + packer.flush()


def _fields(entry: Entry, packed: int, *, local: bool = False) -> tuple[int, ...]:
    """Flags, method, time, date, crc, packed size, size."""
    flags = entry.local_flags if local else entry.flags
    method = entry.method if entry.method is not None else 8 if entry.deflate else 0
    crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
    return flags, method, 0, 0x21, crc, packed, len(entry.data) if entry.size is None else entry.size


def zip_bytes(*entries: Entry, before: bytes = b"", after: bytes = b"", count: int | None = None) -> bytes:
    """A zip of the entries; ``count`` is what the end record claims."""
    body, directory, listed = bytearray(before), bytearray(), 0
    for entry in entries:
        packed = _packed(entry)
        place = len(body) if entry.offset is None else entry.offset
        local_name = (entry.name if entry.local_name is None else entry.local_name).encode()
        if entry.stored:
            local = struct.pack(
                "<4s5H3L2H", b"PK\3\4", 20, *_fields(entry, len(packed), local=True), len(local_name), 0
            )
            body += local + local_name + packed
        if entry.listed:
            name = entry.name.encode()
            numbers = (len(name), 0, 0, 0, 0, entry.mode << 16, place)
            directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 0x314, 20, *_fields(entry, len(packed)), *numbers) + name
            listed += 1
    count = listed if count is None else count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count % 65536, count % 65536, len(directory), len(body), len(after))
    return bytes(body) + bytes(directory) + end + after


def torch_entries(data: bytes, prefix: str = "archive", **changes: object) -> tuple[Entry, ...]:
    """The entries of a torch archive whose ``data.pkl`` is ``data``; ``changes`` are of that entry."""
    main = replace(Entry(f"{prefix}/data.pkl", data), **changes)  # type: ignore[arg-type]
    return main, Entry(f"{prefix}/byteorder", b"little"), Entry(f"{prefix}/version", b"3\n")


def torch_zip(data: bytes, prefix: str = "archive", **changes: object) -> bytes:
    return zip_bytes(*torch_entries(data, prefix, **changes))


def evil_zip(canary: Path) -> bytes:
    return torch_zip(evil(canary))


def marked_zip(data: bytes, method: int = 99) -> bytes:
    """A torch archive whose comment is the mark of an end, so that its own seems cut off, and whose first local header
    names another ``method`` than its directory."""
    archive = zip_bytes(*torch_entries(data, deflate=True), after=b"PK\5\6")
    return archive[:8] + struct.pack("<H", method) + archive[10:]
