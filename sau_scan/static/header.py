"""The header of a safetensors file: what the format forbids is a fact, whatever a lenient reader makes of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sau_scan.findings import Severity
from sau_scan.static.facts import Fact

# Real headers have up to a few MB, of adapters that note all their training captions.
MOST_HEADER = 24 * 2**20
MOST_BRACKETS = 1_500_000  # objects and lists in a header, which each cost far more than a byte once parsed
MOST_DIMENSIONS = 32
MOST_PADDING = 4096
MOST_WRONG = 4  # that are told
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("U8", "I8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class Tensor:
    """Bytes ``begin:end`` counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a header says, as far as it makes sense. ``missing``: bytes by which the file is too short."""

    tensors: tuple[Tensor, ...]
    metadata: dict[str, Any]
    facts: tuple[Fact, ...]
    missing: int = 0


class _Wrong(Exception):
    """The header cannot be used at all."""


def parse_header(text: bytes, size: int) -> Header:
    """``text``: the header without its length; ``size``: that of the file. Never raises."""
    try:
        return _parse(text, size)
    except _Wrong as error:
        return Header((), {}, (_fact(str(error)),))


def early(length: int, size: int) -> Header | None:
    """What the length of a header says already: that it is too long, or longer than the file. Otherwise None."""
    if length > MOST_HEADER:
        return Header((), {}, (_fact(f"Its header claims {length:,} bytes, more than any real one has."),))
    return Header((), {}, (), 8 + length - size) if 8 + length > size else None


def _fact(behaviour: str, severity: Severity | None = None) -> Fact:
    return Fact("safetensors-header", behaviour, severity)


def _parse(text: bytes, size: int) -> Header:
    table, repeated = _load(text)
    metadata = table.pop("__metadata__", {})
    facts = [_fact(problem) for problem in _oddities(text, metadata, repeated)]
    start = 8 + len(text)
    tensors, wrong = [], []
    for name, value in table.items():
        tensor = _tensor(name, value, start)
        if isinstance(tensor, str):
            wrong.append(tensor)
            if len(wrong) == MOST_WRONG:
                break
        else:
            tensors.append(tensor)
    facts += [_fact(problem) for problem in wrong]
    tensors.sort(key=lambda one: (one.begin, one.end))
    missing = 0
    if not wrong:
        layout, missing = _layout(tensors, start, size)
        facts += layout
    return Header(tuple(tensors), metadata if isinstance(metadata, dict) else {}, tuple(facts), missing)


def _load(text: bytes) -> tuple[dict[str, Any], bool]:
    if text.count(b"{") + text.count(b"[") + text.count(b",") // 2 > MOST_BRACKETS:
        raise _Wrong("Its header holds more tensors than any model has.")
    repeated = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        result = dict(items)
        repeated |= len(result) != len(items)
        return result

    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise _Wrong("Its header is not JSON in UTF-8.") from error
    if not isinstance(table, dict):
        raise _Wrong("Its header is not a table of tensors.")
    return table, repeated


def _oddities(text: bytes, metadata: Any, repeated: bool) -> Iterator[str]:
    if text[:1] != b"{":
        yield "Its header does not begin with a brace."
    if len(text) - len(text.rstrip()) > MOST_PADDING:
        yield "Its header is padded with far more blanks than alignment needs."
    if not _encodable(text):
        yield "Its header holds half characters, which readers treat differently."
    if repeated:
        yield "Its header uses a name twice, so that two readers can see two different files."
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        yield "Its metadata is not a table of texts."


def _encodable(text: bytes) -> bool:
    """Escapes of half characters (surrogates) count when they are not two halves of one."""
    return not _HALF.search(text)


# An escape of the first half without the second behind it, or of the second without the first.
_HALF = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F][0-9a-fA-F])\\u[dD][c-fC-F]")


def _tensor(name: str, value: Any, start: int) -> Tensor | str:
    """The tensor, or what is wrong with it."""
    shown = ascii(name)[:80]
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        return f"Its header describes {shown} in a way that cannot be read."
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        return f"Its header gives {shown} a type that does not exist."
    if not _whole(shape) or not _whole(offsets) or len(offsets) != 2 or len(shape) > MOST_DIMENSIONS:
        return f"Its header gives {shown} an impossible size."
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * BITS[dtype]:
        return f"Its header gives {shown} a size that does not fit its shape."
    return Tensor(name, dtype, tuple(shape), start + begin, start + end)


def _whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**48 for number in value)


def _layout(tensors: list[Tensor], start: int, size: int) -> tuple[list[Fact], int]:
    """What is wrong with the order of the tensors, and by how much the file is too short for them."""
    position, problems = start, list[Fact]()
    for tensor in tensors:
        if tensor.begin < position:
            problems.append(_fact("Its tensors overlap: two names for the same bytes."))
            break
        if tensor.begin > position:
            problems.append(_fact(f"Between its tensors are {tensor.begin - position:,} bytes that belong to none."))
            break
        position = tensor.end
    else:
        if position < size:
            told = f"Behind its last tensor are {size - position:,} bytes that belong to none."
            shown = f"tail -c {size - position} {{path}} | xxd | head -n 20"
            problems.append(replace(_fact(told), command=shown))
    return problems, max(0, position - size) if not problems else 0
