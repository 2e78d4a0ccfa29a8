"""Reads parts of a file again that was read before, and notices where they are no longer the same bytes."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from sau_scan.static.positioned import Positioned

BLOCK = 64 * 2**10


class Blocks:
    """The digests of a file's blocks, taken while its bytes pass by."""

    def __init__(self) -> None:
        self._done: list[bytes] = []
        self._open, self._filled = hashlib.sha256(), 0
        self.size = 0

    def update(self, chunk: memoryview) -> None:
        """The next bytes of the file."""
        self.size += len(chunk)
        while len(chunk):
            part = chunk[: BLOCK - self._filled]
            self._open.update(part)
            self._filled += len(part)
            chunk = chunk[len(part) :]
            if self._filled == BLOCK:
                self._done.append(self._open.digest())
                self._open, self._filled = hashlib.sha256(), 0

    def matches(self, number: int, data: bytes) -> bool:
        """Whether ``data`` is the block of this number."""
        known = self._done[number] if number < len(self._done) else self._open.digest()
        return hashlib.sha256(data).digest() == known


class Again(Positioned):
    """The file as it was when its ``blocks`` passed by. Reading raises OSError where it has changed since."""

    def __init__(self, file: BinaryIO, blocks: Blocks) -> None:
        super().__init__(blocks.size)
        self._file, self._blocks = file, blocks
        self._number, self._block = -1, b""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number, within = divmod(self._at, BLOCK)
        if number != self._number and self._at < self._size:
            self._number, self._block = number, self._verified(number)
        data = self._block[within : within + len(buffer)] if self._at < self._size else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _verified(self, number: int) -> bytes:
        start = number * BLOCK
        self._file.seek(start)
        data = self._file.read(min(BLOCK, self._size - start))
        if not self._blocks.matches(number, data):
            raise OSError("the file changed while it was examined")
        return data
