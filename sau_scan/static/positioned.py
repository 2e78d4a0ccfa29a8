"""Streams that can seek and know their size: parts of files, and files that are read again."""

from __future__ import annotations

import io


class Positioned(io.RawIOBase):
    """Keeps the position ``_at`` of a stream of ``_size`` bytes; ``readinto`` is its heirs' affair."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at
