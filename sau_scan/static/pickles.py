"""Pickles: what they would import and call, in whatever file they are. Nothing is unpickled."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from sau_scan.findings import escape
from sau_scan.static.content import WHOLE, Content
from sau_scan.static.facts import Fact, Unfinished
from sau_scan.static.imports import admitted, dangerous, second_opinion
from sau_scan.static.magic import PICKLE_NAMES
from sau_scan.static.opcodes import HIDDEN, Global, Trace, trace

TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch.save before 1.6
MOST_STREAMS = 1_000  # pickles one after the other
SECOND_OPINION = 4_000  # opcodes that picklescan sees, too: its time grows with the square of their number
FIRST_LOOK = 256 * 2**10  # bytes of what need not be a pickle
MOST_NESTED = 2_000
NAMED = 4  # imported names that are listed


def check_pickle(content: Content, *, certain: bool = False, named: bool = False) -> Iterator[Fact]:
    """``certain``: its name and its first bytes say that it is one. Otherwise only what imports (``named``: when its
    name says so) or acts is reported: by chance, other bytes may read as the beginning of a pickle."""
    stream, traces = _look(content, FIRST_LOOK)
    if certain or named or stream.tell() == FIRST_LOOK:  # not broken before
        stream, traces = _look(content, WHOLE)
    certain = certain or (stream.getvalue()[:1] == b"\x80" and bool(traces) and not traces[0].broken)
    named = named and any(_plausible(found) for one in traces for found in one.globals)
    yield from _judge(traces, stream.getvalue(), content, certain or named)
    for data in _nested(traces):
        inner = content.unpacked("a string of bytes", data)
        yield from _judge(list(_traces(io.BytesIO(data), inner)), data, content, False)
    if certain and content.size > WHOLE and not _is_old_torch(traces):
        raise Unfinished(f"{content.shown} is a pickle of {content.size:,} bytes; {WHOLE:,} were looked at")


def _look(content: Content, most: int) -> tuple[io.BytesIO, list[Trace]]:
    stream = io.BytesIO(content.read(0, min(content.size, most)))
    return stream, list(_traces(stream, content))


def is_pickle_name(content: Content) -> bool:
    return content.suffix in PICKLE_NAMES or content.name.rpartition("/")[2] in {
        "data",
        "pickle",
        "tensors",
        "storages",
    }


def _traces(stream: io.BytesIO, content: Content) -> Iterator[Trace]:
    """The pickles that follow each other from the beginning; the last one may be broken."""
    size = len(stream.getbuffer())
    for _ in range(MOST_STREAMS):
        start = stream.tell()
        if start >= size:
            return
        found = trace(stream, content.budget)
        yield found
        if found.broken:
            return
    if found.constant != TORCH_MAGIC:
        raise Unfinished(f"{content.shown} holds more than {MOST_STREAMS:,} pickles")


def _nested(traces: Iterable[Trace]) -> list[bytes]:
    return [data for found in traces for data in found.nested][:MOST_NESTED]


def _is_old_torch(traces: list[Trace]) -> bool:
    return bool(traces) and traces[0].constant == TORCH_MAGIC


def _judge(traces: list[Trace], data: bytes, content: Content, certain: bool) -> Iterator[Fact]:
    # What follows the pickles (the old format's tensors) may read as an opcode or two.
    traces = traces[:1] + [one for one in traces[1:] if one.acts or not one.broken]
    acting = {found for one in traces for found in one.called}
    altered = {found for one in traces for found in one.altered}
    named = {found for one in traces for found in one.globals}
    whole = [one for one in traces if not one.broken]
    if not certain and not any(_plausible(found) for found in acting | altered):
        return
    strange = {found for found in named if not admitted(found, found in acting)}
    if strange and max(sum(one.opcodes for one in traces), len(data) // 64) <= SECOND_OPINION:
        strange |= second_opinion(data)
    grave = {found for found in strange if dangerous(found)} | altered
    if grave:
        yield Fact("pickle-danger", f"Unpickling {content.shown} would run or reach for {_listed(grave)}.")
    if strange - grave:
        yield Fact(
            "pickle-unknown",
            f"Unpickling {content.shown} would import {_listed(strange - grave)}, "
            "which a file of tensors has no need of.",
        )
    if any(one.protocol > 5 for one in traces):
        yield Fact("pickle-broken", f"A pickle in {content.shown} claims a protocol that does not exist.")
    elif certain and traces and traces[0].broken and not _is_old_torch(traces):
        yield Fact("pickle-broken", f"{content.subject} breaks off as a pickle ({traces[0].broken}).")
    if certain and whole and not strange and not altered:
        yield Fact("pickle", f"{content.subject} is a pickle that holds tensors and plain values only.")


def _plausible(found: Global) -> bool:
    """Whether it can be the name of something, unlike two lines of a text that happen to follow the letter c."""
    return found.module == HIDDEN or all(part.isidentifier() for part in f"{found.module}.{found.name}".split("."))


def _listed(names: set[Global]) -> str:
    """Names for a sentence, escaped."""
    shown = sorted(escape(f"{found.module}.{found.name}")[:80] for found in names)
    more = f" and {len(shown) - NAMED:,} more" if len(shown) > NAMED else ""
    return ", ".join(shown[:NAMED]).replace("?.?", "a name that is only known at run time") + more
