"""Looks at every file of a checkpoint while it is being hashed, so that all bytes are read once.

Tensors are looked at as their bytes pass; other files are kept up to a limit, and examined when they are complete.
Of larger ones (archives, mostly) the few parts that matter are read again, from the same open file, and compared with
what passed by.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from os.path import isdir, isfile  # unlike Path's, they raise nothing
from pathlib import Path
from typing import BinaryIO, Protocol

from sau_scan.checkpoint.files import opened
from sau_scan.checkpoint.tensor_file import is_safetensors
from sau_scan.errors import CheckpointError
from sau_scan.findings import FileRecord, Finding, Skipped
from sau_scan.static.again import BLOCK, Again, Blocks
from sau_scan.static.configs import (
    About,
    check_adapters,
    check_classes,
    check_code,
    check_fields,
    check_shards,
    check_sizes,
    check_unexpected,
)
from sau_scan.static.content import WHOLE, Budget, Content
from sau_scan.static.facts import DAMAGED, DENIED, Fact, findings
from sau_scan.static.folder import Folder
from sau_scan.static.header import Header, early, parse_header
from sau_scan.static.inspection import failed, inspect
from sau_scan.static.numbers import Statistics
from sau_scan.static.texts import check_metadata
from sau_scan.static.tokenizer import check_tokenizers
from sau_scan.static.tree import blob_size, check_places, open_regular, regular_files, walk

HEAD = 64 * 2**10
CHUNK = 4 * 2**20
MOST_BYTES = 64 * 2**30  # a sparse file can claim any size
MOST_KEPT = 256 * 2**20  # bytes of all texts that are kept to be compared
KEPT_NAMES = (".json", "merges.txt")
FOLDER_CHECKS: tuple[tuple[str, Callable[[Folder], About]], ...] = (
    ("names", lambda folder: check_places(folder.root, folder.places)),
    ("code", check_code),
    ("classes", check_classes),
    ("configuration", check_fields),
    ("adapters", check_adapters),
    ("sizes", check_sizes),
    ("shards", check_shards),
    ("tensors", check_unexpected),
    ("tokenizer", check_tokenizers),
)


class Sink(Protocol):
    """Gets the bytes of one file, in order. A chunk may be overwritten when ``update`` has returned."""

    def update(self, chunk: memoryview) -> None: ...
    def end(self, sha256: str = "") -> None: ...


@dataclass
class Watch:
    """``root``: the folder that the paths are below, or the one that holds a single file (``alone``)."""

    root: Path
    alone: bool = False
    _folder: Folder = field(init=False)
    _facts: dict[str, list[Fact]] = field(default_factory=dict)
    _skipped: list[Skipped] = field(default_factory=list)
    _kept: int = 0
    _begun: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)  # files that whoever scans may not read
    records: list[FileRecord] = field(default_factory=list)  # of the files that were read to their end

    def __post_init__(self) -> None:
        self._folder = Folder(self.root)

    @classmethod
    def of(cls, path: Path) -> Watch:
        """For a folder, or for a single file."""
        return cls(path) if isdir(path) else cls(path.parent, alone=True)

    def begin(self, relpath: str, size: int, file: BinaryIO) -> Sink:
        """Before a file's first byte; ``file`` stays open until the sink's ``end`` returns."""
        self._begun.add(relpath)
        return _File(self, relpath, size, file)

    def clears(self, relpath: str) -> bool:
        """Whether nothing was found in a file that has ended for which nothing may be loaded."""
        return not any(fact.blocks for fact in self._facts.get(relpath, ()))

    def read(self, relpath: str) -> None:
        """Reads a file to this watch, for want of somebody who hashes it."""
        buffer = memoryview(bytearray(CHUNK))
        try:
            # A single file may be a link to anywhere; whoever names it means what it leads to.
            with open_regular(self.root / relpath) if self.alone else opened(self.root, relpath) as file:
                size = file.seek(0, io.SEEK_END)
                file.seek(0)
                if size > MOST_BYTES:
                    self.note(relpath, [Fact("analyser-failed", f"It claims {size:,} bytes, and was not read.")])
                    return
                sink, digest = self.begin(relpath, size, file), hashlib.sha256()
                while count := file.readinto(buffer):  # type: ignore[attr-defined]
                    digest.update(buffer[:count])
                    sink.update(buffer[:count])
                sink.end(digest.hexdigest())
        except (OSError, CheckpointError) as error:
            denied = next((e for e in (error, error.__cause__) if isinstance(e, PermissionError)), None)
            told = Fact(DENIED, f"cannot be read: {denied.strerror}") if denied is not None else failed("bytes", error)
            self.note(relpath, [told])

    def read_rest(self, path: Path) -> None:
        """Reads what nobody did of the ``path`` that this watch is of, unless that is more than any checkpoint."""
        names = ([path.name] if isfile(path) else []) if self.alone else regular_files(path)
        left = [name for name in names if name not in self._begun]
        with suppress(OSError):
            if sum((self.root / name).stat().st_size for name in left) <= MOST_BYTES:
                for name in left:
                    self.read(name)

    @property
    def files_read(self) -> int:
        return len(self._begun)

    def _read_unseen(self) -> None:
        """Files that a checkpoint's listing passes over, such as those in hidden folders."""
        left, real_root = MOST_BYTES, self.root.resolve()
        for place in self._folder.places:
            if stat.S_ISDIR(place.mode) and not os.access(self.root / place.relpath, os.R_OK | os.X_OK):
                self.note(f"{place.relpath}/", [Fact(DENIED, "cannot be looked into: Permission denied")])
            size = place.size if stat.S_ISREG(place.mode) else blob_size(self.root, real_root, place)
            if size is not None and place.relpath not in self._begun:
                left -= size
                if left >= 0:
                    self.read(place.relpath)
                else:
                    told = f"With its {size:,} bytes, hidden files are larger than any model; it was not read."
                    self.note(place.relpath, [Fact("analyser-failed", told)])

    def results(self) -> list[Finding | Skipped]:
        """All that was found, when the last file has ended; in the order of the paths."""
        if not self.alone:
            self._folder.places = list(walk(self.root))
            self._read_unseen()
        about = {path: list(facts) for path, facts in self._facts.items()}
        for name, check in FOLDER_CHECKS:
            for path, fact in self._guarded(name, check):
                about.setdefault(path, []).append(fact)
        found = [finding for path in sorted(about) for finding in findings(self.root, path, about[path])]
        return [*found, *self._skipped]

    def _guarded(self, name: str, check: Callable[[Folder], About]) -> Iterator[tuple[str, Fact]]:
        try:
            yield from check(self._folder)
        except Exception as error:  # hostile files may break anything; that is worth telling
            yield next(iter(self._folder.texts), "."), failed(name, error)

    def note(self, relpath: str, facts: Iterator[Fact] | list[Fact] | tuple[Fact, ...]) -> None:
        """Facts about a file."""
        told = []
        for fact in facts:
            if fact.rule == DENIED:
                self.denied.add(relpath)
            if fact.rule in (DAMAGED, DENIED):
                self._skipped.append(Skipped(what=relpath, reason=fact.behaviour, planned=fact.rule == DENIED))
            else:
                told.append(fact)
        if told:
            self._facts.setdefault(relpath, []).extend(told)

    def keep(self, relpath: str, data: bytes) -> None:
        """A text that folder checks need."""
        if relpath.endswith(KEPT_NAMES):
            self._kept += len(data)
            if self._kept <= MOST_KEPT:
                self._folder.texts[relpath] = data
            else:
                self.note(
                    relpath, [Fact("json-oversize", "With it, the configurations hold more text than any model's.")]
                )

    def add_header(self, relpath: str, header: Header, size: int) -> None:
        """What is known of a safetensors file at its end."""
        self._folder.headers[relpath] = header
        self.note(relpath, header.facts)
        self.note(relpath, check_metadata(header.metadata))
        if header.missing:
            reason = f"ends after {size:,} of {size + header.missing:,} bytes: it is cut short"
            self._skipped.append(Skipped(what=relpath, reason=reason, planned=True))


class _File:
    """The bytes of one file on their way."""

    def __init__(self, watch: Watch, relpath: str, size: int, file: BinaryIO) -> None:
        self._watch, self._relpath, self._size, self._file = watch, relpath, size, file
        self._blocks = Blocks()
        self._kept = bytearray()
        self._seen = 0
        self._header: Header | None = None
        self._statistics: Statistics | None = None
        self._wanted = WHOLE if size <= WHOLE else HEAD  # bytes that are kept

    def update(self, chunk: memoryview) -> None:
        self._seen += len(chunk)
        if self._header is not None:
            if self._statistics is not None:
                self._statistics.update(chunk)
            return
        before = len(self._kept)
        self._kept += chunk[: max(0, self._wanted - before)]
        if self._size > WHOLE:
            self._blocks.update(chunk)
        if self._is_safetensors():
            self._read_header(chunk, before)

    def _is_safetensors(self) -> bool:
        return len(self._kept) >= min(64, self._size) and is_safetensors(bytes(self._kept[:64]))

    def _read_header(self, chunk: memoryview, before: int) -> None:
        """As soon as the header is complete, what follows is only looked at, not kept."""
        length = int.from_bytes(self._kept[:8], "little")
        self._header = early(length, self._size)
        if self._header is not None:
            return
        start = 8 + length
        self._wanted = max(self._wanted, start)
        if len(self._kept) < min(start, before + len(chunk)):
            self._kept += chunk[len(self._kept) - before : start - before]
        if len(self._kept) < start:
            return
        self._header = parse_header(bytes(self._kept[8:start]), self._size)
        if not self._header.facts:
            self._statistics = Statistics(self._header.tensors, start)
            self._statistics.update(chunk[start - before :])

    def end(self, sha256: str = "") -> None:
        watch, relpath = self._watch, self._relpath
        if sha256:
            watch.records.append(FileRecord(path=relpath, size=self._seen, sha256=sha256))
        if self._header is not None:
            watch.add_header(relpath, self._header, self._seen)
        if self._statistics is not None:
            watch.note(relpath, self._statistics.facts())
        try:
            self._examine()
        except OSError as error:
            watch.note(relpath, [failed("bytes", error)])
        self._kept = bytearray()

    def _examine(self) -> None:
        """Everything but the tensors: of bytes that were hashed, whether they were kept or are read again."""
        watch, relpath = self._watch, self._relpath
        if self._size <= WHOLE and self._seen <= len(self._kept):
            watch.keep(relpath, bytes(self._kept))
            self._inspect(io.BytesIO(self._kept))
        elif self._header is not None:
            self._inspect(io.BytesIO(self._kept))
        elif self._blocks.size == self._seen:
            self._inspect(io.BufferedReader(Again(self._file, self._blocks), BLOCK))
        else:
            raise OSError("the file grew while it was read")

    def _inspect(self, stream: BinaryIO) -> None:
        content = Content(self._relpath, self._seen, stream, Budget(self._seen))
        self._watch.note(self._relpath, inspect(content))
