"""Archives: what is packed into them, seen without writing anything, and the tricks they play on those who unpack."""

from __future__ import annotations

import bz2
import io
import lzma
import re
import stat
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from sau_scan.checkpoint.downloads import ends_of, is_cut_zip
from sau_scan.checkpoint.naming import PICKLES
from sau_scan.findings import Severity, escape
from sau_scan.static.content import WHOLE, Content
from sau_scan.static.facts import Fact, Unfinished
from sau_scan.static.magic import PICKLE_NAMES, kind_of
from sau_scan.static.unpacking import unpack
from sau_scan.static.zips import Directory, Entry, has_end, read_directory

Look = Callable[[Content], Iterator[Fact]]
BOMB_RATIO = 150  # unpacked to packed, over an archive; tensors never pack so well
BOMB_SIZE = 128 * 2**20
HEAD = 4096
CHECKED = 2**20  # stored entries up to this size have their checksums compared; tensors need none
MOST_7Z_HEADER = 2**20
MOST_MEMBERS = 20_000  # of honest archives; a model has some thousand tensors


def check_zip(content: Content, look: Look) -> Iterator[Fact]:
    """The directory's tricks, then each entry with ``look``."""
    content.budget.enter()
    directory = read_directory(content)
    if is_cut(content):
        yield from _remains(content, directory, look)
        return
    for problem in directory.problems:
        yield Fact("archive-broken", problem)
    yield from _names(directory)
    if len(directory.entries) > MOST_MEMBERS:
        yield Fact("archive-bomb", f"It has {len(directory.entries):,} entries.", Severity.MEDIUM)
    content.budget.claimed += sum(entry.size for entry in directory.entries)
    claimed, size = content.budget.claimed, content.budget.size
    bomb = claimed > BOMB_SIZE and claimed > BOMB_RATIO * size
    if bomb:
        yield Fact("archive-bomb", f"{size:,} bytes unpack to {claimed:,} or more.")
    for entry in directory.entries:
        content.budget.check()
        if not entry.is_folder:
            yield from _entry(content, entry, look, bomb)


def is_cut(content: Content) -> bool:
    """Whether a file of weights is an archive whose end is missing: loaders, which begin there, cannot read it."""
    named = not content.inside and content.suffix in PICKLES
    return named and is_cut_zip(ends_of(content.stream, content.size))


def _remains(content: Content, directory: Directory, look: Look) -> Iterator[Fact]:
    """What is in an archive that was cut. The cut explains that the directory is missing, and that a pickle breaks off
    in the last entry; nothing else."""
    last = max((entry.header for entry in directory.entries), default=0)
    for entry in directory.entries:
        content.budget.check()
        cut = entry.header == last and entry.begin + entry.packed >= content.size
        found = _entry(content, entry, look, bomb=False, sums=False)
        yield from (fact for fact in found if not (cut and fact.rule == "pickle-broken"))


def _names(directory: Directory) -> Iterator[Fact]:
    for entry in directory.entries:
        if _leaves(entry.name):
            yield Fact("archive-path", f"The entry {escape(entry.name)[:80]} would be unpacked outside of its folder.")
        if stat.S_ISLNK(entry.mode):
            yield Fact("archive-path", f"The entry {escape(entry.name)[:80]} is a link.")
    counts = Counter(entry.name for entry in directory.entries)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        yield Fact("archive-broken", f"It has two entries called {escape(twice)[:80]}.")


def check_tail(content: Content, kind: str, look: Look) -> Iterator[Fact]:
    """What stands behind something else: a zip archive, which readers find from its end, or more than a picture."""
    if has_end(content):
        yield Fact("archive-broken", f"Behind {content.shown}, which begins as something else, is a zip archive.")
        yield from check_zip(content, look)
    if kind == "picture":
        data = content.read(0, min(content.size, WHOLE))
        end = next((at + len(mark) for mark in _PICTURE_ENDS if (at := data.find(mark)) >= 0), len(data))
        if data[:3] in _WITH_END and end < len(data):
            count = len(data) - end
            yield Fact(
                "disguised", f"Behind the picture are {count:,} bytes that do not belong to it.", Severity.MEDIUM
            )
            for found in islice(_PICKLES.finditer(data, end), MOST_HIDDEN):
                yield from look(content.window("what is behind the picture", found.start(), len(data) - found.start()))


_PICTURE_ENDS = (b"IEND\xaeB`\x82", b"\xff\xd9")
_WITH_END = frozenset({b"\x89PN"})
_PICKLES = re.compile(rb"\x80[\x00-\x05]|PK\x03\x04|c[a-z_.]{1,40}\n[A-Za-z_.]{1,40}\n")
MOST_HIDDEN = 64


def _leaves(name: str) -> bool:
    path = name.replace("\\", "/")
    return path.startswith("/") or ".." in path.split("/") or path[1:2] == ":" or "\0" in name


def _entry(content: Content, entry: Entry, look: Look, bomb: bool, sums: bool = True) -> Iterator[Fact]:
    """One entry as content of its own: large stored ones in place, others unpacked as far as the limits go.
    ``sums``: whether its size and its checksum are known."""
    if entry.method == 0:
        size = min(entry.packed, max(0, content.size - entry.begin))
        yield from look(content.window(entry.name, entry.begin, size))
        if sums and size <= CHECKED:
            yield from _checksum(entry, content.read(entry.begin, size))
        return
    most = HEAD
    try:
        most = HEAD if bomb or not _worthy(content, entry) else WHOLE
        data = unpack(content, entry, most)
    except ValueError as error:
        shown = escape(entry.name)[:80]
        yield Fact("archive-broken", f"Its entry {shown} cannot be unpacked ({ascii(str(error)[:60])[1:-1]}).")
        data = content.read(entry.begin, min(entry.packed, WHOLE))
    whole = len(data) < most and entry.packed <= WHOLE
    # What the directory claims may be a lie; that more would come out is not.
    yield from look(content.unpacked(entry.name, data, 0 if whole else max(entry.size, len(data) + 1)))
    if sums and whole:
        yield from _checksum(entry, data)


def _worthy(content: Content, entry: Entry) -> bool:
    """Whether an entry is to be unpacked whole: all but what its first bytes show to be plain numbers."""
    head = unpack(content, entry, HEAD)
    return PurePosixPath(entry.name).suffix.lower() in PICKLE_NAMES or kind_of(head) != "other"


def _checksum(entry: Entry, data: bytes) -> Iterator[Fact]:
    if len(data) != entry.size and entry.size:
        yield Fact("archive-broken", f"Its entry {escape(entry.name)[:80]} has another size than the directory says.")
    elif zlib.crc32(data) != entry.crc:
        yield Fact("archive-checksum", f"The checksum of its entry {escape(entry.name)[:80]} is wrong.")


def check_tar(content: Content, look: Look) -> Iterator[Fact]:
    """Members in place; nothing is extracted."""
    content.stream.seek(0)
    try:
        with tarfile.open(fileobj=content.stream, mode="r:") as archive:
            for number, member in enumerate(archive):
                content.budget.check()
                if number >= MOST_MEMBERS:
                    raise Unfinished(f"{content.shown} has more than {MOST_MEMBERS:,} members")
                yield from _member(content, member, look)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, MemoryError, EOFError) as error:
        yield Fact("archive-broken", f"{content.subject} is a damaged tar ({ascii(str(error)[:60])[1:-1]}).")


def _member(content: Content, member: tarfile.TarInfo, look: Look) -> Iterator[Fact]:
    shown = escape(member.name)[:80]
    if _leaves(member.name) or ((member.islnk() or member.issym()) and _leaves(member.linkname)):
        yield Fact("archive-path", f"The member {shown} would be unpacked outside of its folder.")
    elif member.issym() or member.islnk():
        yield Fact("archive-path", f"The member {shown} is a link.")
    elif member.isdev():
        yield Fact("archive-path", f"The member {shown} is a device or a pipe.")
    if member.isfile():
        size = min(member.size, max(0, content.size - member.offset_data))
        yield from look(content.window(member.name, member.offset_data, size))


def check_wrapped(content: Content, kind: str, look: Look) -> Iterator[Fact]:
    """Compressed streams: gzip, bzip2, xz. Several in a row unpack to one, as their readers do it."""
    packed = content.read(0, min(content.size, WHOLE))
    data, problem = _streams(packed, _WRAPS[kind])
    content.budget.spend(len(data))
    if len(data) > WHOLE and len(data) > BOMB_RATIO * content.size:
        yield Fact("archive-bomb", f"{content.size:,} bytes unpack to more than {WHOLE:,}.")
    elif len(data) > WHOLE or content.size > WHOLE:
        yield Fact("archive-packed", f"{content.subject} is {kind}; it was not unpacked to its end.")
    elif problem:
        yield Fact("archive-broken", f"{content.subject} cannot be unpacked to its end ({problem}).")
    if data:
        yield from look(content.unpacked(PurePosixPath(content.name).stem, data))


def _streams(packed: bytes, opener: Callable[[], Any]) -> tuple[bytes, str]:
    """What comes out, up to a little more than WHOLE, and what went wrong behind it."""
    data = b""
    for _ in range(MOST_STREAMS):
        reader = opener()
        try:
            data += reader.decompress(packed, WHOLE + 1 - len(data))
        except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError, MemoryError) as error:
            return data, ascii(str(error)[:60])[1:-1]
        if not reader.eof or len(data) > WHOLE:
            return data, "" if len(data) > WHOLE else "it is cut short"
        packed = reader.unused_data.lstrip(b"\0")
        if not packed:
            return data, ""
    return data, "it consists of too many streams"


MOST_STREAMS = 256
_WRAPS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(31),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=256 * 2**20),
    "lzma": lambda: lzma.LZMADecompressor(memlimit=256 * 2**20),
}


def check_packed(content: Content, kind: str) -> Iterator[Fact]:
    """An archive that is never unpacked. Only names within 7z are listed, where that is cheap."""
    names = _names_in_7z(content) if kind == "7z" else None
    pickles = [name for name in names or [] if PurePosixPath(name.lower()).suffix in PICKLE_NAMES]
    if pickles:
        yield Fact(
            "archive-packed", f"It is a {kind} archive with the pickle {escape(pickles[0])[:80]}.", Severity.CRITICAL
        )
    else:
        yield Fact("archive-packed", f"{content.subject} is a {kind} archive, which is not unpacked.")


def _names_in_7z(content: Content) -> list[str] | None:
    """None where py7zr is not installed, the list cannot be read, or would take more memory than it is worth."""
    try:
        import py7zr
        from py7zr.archiveinfo import HeaderStreamsInfo, SignatureHeader

        content.stream.seek(0)
        start = SignatureHeader.retrieve(content.stream)
        size, offset = start.nextheadersize, 32 + start.nextheaderofs
        if not 0 < size <= MOST_7Z_HEADER:
            return None
        header = content.read(offset, size)
        if header[:1] == b"\x17":  # the list itself is packed
            streams = HeaderStreamsInfo.retrieve(io.BytesIO(header[1:]))
            if sum(size for folder in streams.unpackinfo.folders for size in folder.unpacksizes) > MOST_7Z_HEADER:
                return None
        content.stream.seek(0)
        with py7zr.SevenZipFile(content.stream, "r") as archive:
            return list(archive.getnames())
    except Exception:  # it is not made for hostile input; the archive is reported all the same
        return None
