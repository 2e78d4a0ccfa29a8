"""Safetensors files whose headers lie, and numbers that are none."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sau_scan.findings import Severity
from tests.corpus.opcodes import evil
from tests.corpus.sample import Sample, command, writes
from tests.corpus.zips import evil_zip

HIGH, MEDIUM, LOW = Severity.HIGH, Severity.MEDIUM, Severity.LOW
A = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
B = {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]}
DATA = struct.pack("<8f", *range(8))
SPECIFICATION = "https://github.com/huggingface/safetensors#format"


def raw(header: bytes, data: bytes = DATA, length: int | None = None) -> bytes:
    """A file of this header and data; ``length`` is what the first eight bytes claim of the header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensors(data: bytes = DATA, **entries: Any) -> bytes:
    return raw(json.dumps(entries).encode(), data)


def _text(header: str) -> bytes:
    return raw(header.encode())


def _entry(**changes: Any) -> bytes:
    """Two tensors, the second with other claims."""
    return tensors(a=A, b={**B, **changes})


def _metadata(value: Any) -> bytes:
    return tensors(__metadata__=value, a=A, b=B)


def _floats(dtype: str, words: bytes) -> bytes:
    return tensors(words, a={"dtype": dtype, "shape": [8], "data_offsets": [0, len(words)]})


TEMPLATE = "{{ cycler.__init__.__globals__.os.popen('id').read() }}"
PLAIN = json.dumps({"a": A, "b": B})

# id, what it is, its bytes
_LIES: tuple[tuple[str, str, bytes], ...] = (
    ("overlap", "two tensors share bytes", _entry(data_offsets=[8, 24])),
    ("same-bytes", "two tensors are the same bytes", _entry(data_offsets=[0, 16])),
    ("gap", "bytes between two tensors", tensors(DATA + bytes(16), a=A, b={**B, "data_offsets": [32, 48]})),
    ("trailing", "bytes after the last tensor", tensors(DATA + b"x" * 64, a=A, b=B)),
    ("leading", "bytes before the first tensor", tensors(a={**A, "data_offsets": [16, 32]})),
    ("duplicate-key", "one tensor twice", _text(PLAIN[:-1] + ',"a":' + json.dumps(A) + "}")),
    ("duplicate-field", "one field twice", _text(PLAIN.replace('"dtype": "F32"', '"dtype": "F32", "dtype": "I32"', 1))),
    ("duplicate-metadata", "metadata twice", _text('{"__metadata__":{"a":"b"},"__metadata__":{},' + PLAIN[1:])),
    ("past-the-end", "a tensor ends after the file", _entry(data_offsets=[16, 4096])),
    ("cut-short", "the file is cut short", tensors(a=A, b=B)[:-8]),
    ("cut-in-header", "the header is cut short", tensors(a=A, b=B)[:40]),
    ("negative-offset", "a negative offset", _entry(data_offsets=[-16, 0])),
    ("reversed-offsets", "an end before its start", _entry(data_offsets=[32, 16])),
    ("float-offset", "an offset that is no whole number", _entry(data_offsets=[16.0, 32.0])),
    ("text-offset", "offsets as text", _entry(data_offsets=["16", "32"])),
    ("one-offset", "one offset", _entry(data_offsets=[16])),
    ("no-offset", "no offsets", tensors(a=A, b={"dtype": "F32", "shape": [4]})),
    ("true-offset", "true and false as offsets", tensors(a=A, b={**B, "data_offsets": [False, True]})),
    ("huge-offset", "an offset of 200 digits", _entry(data_offsets=[16, 10**200])),
    ("wide-offset", "an offset that wraps around 64 bits", _entry(data_offsets=[16, 2**64 + 32])),
    ("wrong-size", "a shape of another size than its bytes", _entry(shape=[5])),
    ("wrong-dtype", "a type of another size than its bytes", _entry(dtype="F64")),
    ("unknown-dtype", "a type that there is not", _entry(dtype="PICKLE")),
    ("number-dtype", "a number as the type", _entry(dtype=32)),
    ("huge-shape", "a shape whose product wraps around", _entry(shape=[2**62, 2**3, 2**62])),
    ("negative-shape", "a negative shape", _entry(shape=[-1, -4])),
    ("no-shape", "a shape that is no list", _entry(shape=None)),
    ("number-entry", "a number in place of an entry", tensors(a=A, b=B, c=3)),
    ("list-header", "a list in place of the header", _text("[1, 2]")),
    ("number-header", "a number in place of the header", _text("12345678")),
    ("leading-space", "a header that starts with a space", _text(" " + PLAIN)),
    ("byte-order-mark", "a header with a byte order mark", _text("\ufeff" + PLAIN)),
    ("zero-padding", "a header filled up with zeros", raw(PLAIN.encode() + bytes(16))),
    ("two-objects", "two objects in the header", _text(PLAIN + PLAIN)),
    ("not-json", "a header that is no JSON", _text("{'a': open('x')}")),
    ("nan-json", "NaN in the header", _text('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}')),
    ("not-utf-8", "a header that is not UTF-8", raw(b'{"a\xff\xfe":' + json.dumps(A).encode() + b"}", DATA[:16])),
    ("utf-16", "a header in UTF-16", raw(PLAIN.encode("utf-16"))),
    ("surrogate", "half a character as a name", _text('{"\\ud800":' + json.dumps(A) + ',"b":' + json.dumps(B) + "}")),
    ("deep", "100,000 brackets in the header", _text('{"__metadata__":' + "[" * 100_000 + "]" * 100_000 + "}")),
    ("deep-objects", "50,000 objects in each other", _text('{"a":' * 50_000 + "1" + "}" * 50_000)),
    ("huge-header", "a header of 2^60 bytes, as it claims", raw(PLAIN.encode(), length=2**60)),
    ("negative-header", "a header of 2^64 - 1 bytes", raw(PLAIN.encode(), length=2**64 - 1)),
    ("long-header", "a header that claims to be longer than the file", raw(PLAIN.encode(), length=4096)),
    ("no-header", "a header of no bytes", raw(b"", length=0)),
    ("empty", "an empty file", b""),
    ("seven-bytes", "seven bytes", b"\1\0\0\0\0\0\0"),
    ("list-metadata", "metadata that is a list", _metadata(["a"])),
    ("nested-metadata", "metadata with an object in it", _metadata({"a": {"b": "c"}})),
    ("number-metadata", "metadata with a number in it", _metadata({"a": 1})),
    ("nan", "NaN among the weights", _floats("F32", struct.pack("<8f", *range(7), float("nan")))),
    ("infinite", "infinity among the weights", _floats("F16", struct.pack("<8e", *range(7), float("inf")))),
    ("nan-bf16", "NaN among bfloat16", _floats("BF16", bytes(14) + b"\xc0\x7f")),
    ("nan-f64", "NaN among double precision", _floats("F64", struct.pack("<8d", *range(7), float("nan")))),
)


def _same(data: bytes) -> Callable[[Path], bytes]:
    return lambda canary: data


def _polyglot(packed: Callable[[Path], bytes]) -> Callable[[Path], bytes]:
    """Valid for who reads the header, and something else for who looks at the end or elsewhere."""
    return lambda canary: tensors(DATA + packed(canary), a=A, b=B)


def _hidden_pickle(canary: Path) -> bytes:
    """Between two tensors."""
    data = evil(canary)
    end = 16 + len(data)
    return tensors(DATA[:16] + data + DATA[16:], a=A, b={**B, "data_offsets": [end, end + 16]})


# id, what it is, its bytes, the least severity
_CARRIERS: tuple[tuple[str, str, Callable[[Path], bytes], Severity], ...] = (
    ("zip-at-the-end", "a torch archive behind the tensors", _polyglot(evil_zip), HIGH),
    ("pickle-at-the-end", "a pickle behind the tensors", _polyglot(evil), HIGH),
    ("pickle-between", "a pickle between two tensors", _hidden_pickle, HIGH),
    ("template", "a template in the metadata", lambda c: _metadata({"chat_template": TEMPLATE}), MEDIUM),
    ("code", "code in the metadata", lambda c: _metadata({"config": f"__import__('os').system({command(c)!r})"}), MEDIUM),
    ("long-metadata", "6 MB of metadata", lambda c: _metadata({"a": "x" * 6_000_000}), LOW),
)  # fmt: skip

# No reader gets anything from these; whether that is meant cannot be told.
_DAMAGED = {"cut-short", "cut-in-header", "long-header", "empty", "seven-bytes"}

LIES = tuple(
    Sample(f"header-{name}", "model.safetensors", what, writes(_same(data)), HIGH, SPECIFICATION, name in _DAMAGED)
    for name, what, data in _LIES
) + tuple(
    Sample(f"header-{name}", "model.safetensors", what, writes(data), least, SPECIFICATION)
    for name, what, data, least in _CARRIERS
)
