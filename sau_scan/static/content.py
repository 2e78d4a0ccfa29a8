"""Bytes of one file, or of one entry within an archive, as analysers see them; and what they may spend on them."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from sau_scan.findings import escape
from sau_scan.static.facts import Unfinished
from sau_scan.static.positioned import Positioned

WHOLE = 64 * 2**20  # what is held in memory of one file at a time
MOST_DEPTH = 4  # archives in archives
MOST_UNPACKED = 512 * 2**20  # over all entries of one file
MOST_ARCHIVES = 5_000  # in one file; a folder of models has some dozens
MOST_SECONDS = 40.0


@dataclass
class Budget:
    """What one file on disk, of ``size`` bytes, may cost with everything packed into it. ``claimed``: what all archives
    in it say they unpack to."""

    size: int = 0
    claimed: int = 0
    seconds: float = MOST_SECONDS
    unpacked: int = MOST_UNPACKED
    archives: int = MOST_ARCHIVES
    started: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raises Unfinished when the time is up, or there is no end of archives."""
        if self.archives < 0:
            raise Unfinished(f"more than {MOST_ARCHIVES:,} archives are packed into it")
        if time.monotonic() - self.started > self.seconds:
            raise Unfinished(f"it takes longer than {self.seconds:.0f} s")

    def enter(self) -> None:
        """Another archive is looked into; a few bytes can stand for many in each other. Raises Unfinished."""
        self.archives -= 1
        self.check()

    def spend(self, count: int) -> None:
        """``count`` bytes were unpacked. Raises Unfinished."""
        self.unpacked -= count
        if self.unpacked < 0:
            raise Unfinished(f"it unpacks to more than {MOST_UNPACKED >> 20} MiB")
        self.check()


class Window(Positioned):
    """A part of a stream as a file of its own."""

    def __init__(self, stream: BinaryIO, start: int, size: int) -> None:
        super().__init__(max(size, 0))
        self._stream, self._start = stream, start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._stream.seek(self._start + self._at)
        data = self._stream.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclass(frozen=True)
class Content:
    """``name``: its name as the file system or the archive gives it; ``inside``: what it was unpacked from, outermost
    first. ``stream`` can seek; each analyser starts where it likes."""

    name: str
    size: int
    stream: BinaryIO
    budget: Budget
    inside: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name.lower()).suffix

    @property
    def shown(self) -> str:
        """How sentences call it."""
        return f"its entry {escape(self.name)[:80]}" if self.inside else "the file"

    @property
    def subject(self) -> str:
        """The same at the beginning of a sentence."""
        return self.shown[0].upper() + self.shown[1:]

    def read(self, start: int, count: int) -> bytes:
        """Up to ``count`` bytes at ``start``."""
        self.stream.seek(start)
        return self.stream.read(count)

    def head(self, count: int = 512) -> bytes:
        return self.read(0, count)

    def whole(self, limit: int = WHOLE) -> bytes:
        """All of it. Raises Unfinished above ``limit``."""
        if self.size > limit:
            raise Unfinished(f"{self.shown} has {self.size:,} bytes; {limit:,} are looked at")
        return self.read(0, self.size)

    def window(self, name: str, start: int, size: int) -> Content:
        """A part of it as content of its own. Raises Unfinished below too many others."""
        part = io.BufferedReader(Window(self.stream, start, size))
        return self._within(name, size, part)

    def unpacked(self, name: str, data: bytes, size: int = 0) -> Content:
        """What was unpacked from it; ``size``: how much there is, where that is more than ``data``."""
        return self._within(name, max(size, len(data)), io.BytesIO(data))

    def _within(self, name: str, size: int, stream: BinaryIO) -> Content:
        if len(self.inside) >= MOST_DEPTH:
            raise Unfinished(f"archives are packed into archives more than {MOST_DEPTH} deep")
        return Content(name, size, stream, self.budget, (*self.inside, self.name))
