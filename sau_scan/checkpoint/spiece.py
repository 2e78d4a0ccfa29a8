"""The word pieces in a SentencePiece model, read without its library: T5's vocabulary, where no tokenizer.json is.

A few fields of a protobuf message: 1, repeated, a piece (1 its text, 2 its score); 3, how texts are normalised before
(2 a table of characters).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MOST_PIECES = 1_000_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Pieces:
    """``scored``: (piece, logarithm of its probability), in order of id; ``characters``: the table for normalising."""

    scored: list[tuple[str, float]]
    characters: bytes


def read_pieces(data: bytes) -> Pieces:
    """Raises ValueError for what is no such model."""
    scored: list[tuple[str, float]] = []
    characters = b""
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            scored.append(_piece(value))
        elif number == 3 and isinstance(value, bytes):
            characters = next((v for n, v in _fields(value) if n == 2 and isinstance(v, bytes)), b"")
        if len(scored) > MOST_PIECES:
            raise ValueError("more pieces than any vocabulary has")
    if not scored:
        raise ValueError("no pieces")
    return Pieces(scored, characters)


def _piece(data: bytes) -> tuple[str, float]:
    text, score = "", 0.0
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == 2 and isinstance(value, float):
            score = value
    return text, score


def _fields(data: bytes) -> Iterator[tuple[int, bytes | float | int]]:
    """(number, value) of every field of a message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, size = key & 7, 0
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if at + size > len(data):
            raise ValueError("cut short")
        part, at = data[at : at + size], at + size
        yield key >> 3, struct.unpack("<f", part)[0] if kind == _FIXED32 else part


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("cut short")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("a number that is too long")
