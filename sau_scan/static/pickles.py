"""Pickles: what they would import and call, in whatever file they are. Nothing is unpickled."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sau_scan.findings import escape
from sau_scan.static.content import WHOLE, Content
from sau_scan.static.facts import Fact, Unfinished, damaged
from sau_scan.static.imports import admitted, dangerous, readable, second_opinion
from sau_scan.static.magic import PICKLE_NAMES
from sau_scan.static.opcodes import HIDDEN, Global, Trace, trace

OLD_TORCH = 5  # pickles of torch.save before 1.6: two numbers, the system, the content, the keys of its tensors
OLD_NUMBERS = [0x1950A86A20F9469CFC6C, 1001]
MOST_STREAMS = 1_000  # pickles one after the other
SECOND_OPINION = 4_000  # opcodes that picklescan sees, too: its time grows with the square of their number
FIRST_LOOK = 256 * 2**10  # bytes of what need not be a pickle
MOST_NESTED = 2_000
EXPLAINED = "sau-scan rules show pickle"
NAMED = 4  # imported names that are listed


@dataclass(frozen=True)
class _Look:
    """What was seen of ``size`` bytes. ``end``: where the last pickle ends or breaks; ``limit``: which one was met."""

    data: bytes
    size: int
    traces: list[Trace]
    end: int
    limit: str = ""

    @property
    def cut(self) -> bool:
        """Whether the last pickle goes on, for all that is known, behind what was read."""
        return self.end == len(self.data) < self.size

    @property
    def old(self) -> bool:
        """Whether torch would take it for its old format: by its first two pickles, with a third behind them."""
        first = self.traces[:3]
        numbers = [one.number for one in first[:2]]
        return numbers == OLD_NUMBERS and len(first) == 3 and not any(one.broken for one in first)

    @property
    def needed(self) -> list[Trace]:
        """The pickles that a loader reads; the old format's tensors follow behind its five."""
        return self.traces[: OLD_TORCH if self.old else 1]

    @property
    def complete(self) -> bool:
        """Whether all of those are there to their ends."""
        return len(self.needed) == (OLD_TORCH if self.old else 1) and not any(one.broken for one in self.needed)

    @property
    def ends_early(self) -> bool:
        """Whether all that is wrong is that bytes are missing at the end."""
        return self.end == len(self.data) == self.size

    @property
    def goes_on(self) -> bool:
        """Whether a loader could unpickle more than was looked at: not behind a break, nor where tensors follow."""
        if len(self.data) == self.size or (self.old and self.complete):
            return False
        return self.cut or not self.traces or (not self.old and not self.traces[0].broken)


def check_pickle(content: Content, *, certain: bool = False, named: bool = False) -> Iterator[Fact]:
    """``certain``: its name and its first bytes say that it is one. Otherwise only what imports (``named``: when its
    name says so) or acts is reported: by chance, other bytes may read as the beginning of a pickle."""
    look = _look(content, FIRST_LOOK)
    if look.size > FIRST_LOOK and (certain or named or look.cut):
        look = _look(content, WHOLE)
    plausible = any(_plausible(found) for one in look.traces for found in one.globals)
    certain = certain or (look.data[:1] == b"\x80" and (look.complete or look.cut))
    limit = look.limit
    if not limit and look.goes_on and (certain or named or plausible):
        limit = f"{content.shown} is a pickle of {content.size:,} bytes; {len(look.data):,} were looked at"
    yield from _judge(look, content, certain or (named and plausible), finished=not limit)
    for data in _nested(look.traces):
        inner = _look(content.unpacked("a string of bytes", data), WHOLE)
        yield from _judge(inner, content, False)
    if limit:
        raise Unfinished(limit)


def _look(content: Content, most: int) -> _Look:
    """The pickles that follow each other from the beginning; the last one may be broken."""
    stream = io.BytesIO(content.read(0, min(content.size, most)))
    data, limit = stream.getvalue(), ""
    traces: list[Trace] = []
    try:
        while stream.tell() < len(data) and not (traces and traces[-1].broken):
            if len(traces) == MOST_STREAMS:
                raise Unfinished(f"{content.shown} holds more than {MOST_STREAMS:,} pickles")
            traces.append(trace(stream, content.budget))
    except Unfinished as error:  # what was found before it counts
        limit = str(error)
    return _Look(data, content.size, traces, stream.tell(), limit)


def is_whole_pickle(content: Content) -> bool:
    """Whether a loader could read it to its end."""
    return _look(content, WHOLE).complete


def is_pickle_name(content: Content) -> bool:
    return content.suffix in PICKLE_NAMES or content.name.rpartition("/")[2] in {
        "data",
        "pickle",
        "tensors",
        "storages",
    }


def _nested(traces: Iterable[Trace]) -> list[bytes]:
    return [data for found in traces for data in found.nested][:MOST_NESTED]


def _judge(look: _Look, content: Content, certain: bool, *, finished: bool = True) -> Iterator[Fact]:
    # What follows the pickles (the old format's tensors) may read as an opcode or two.
    behind = look.traces[len(look.needed) :]
    traces, data = look.needed + [one for one in behind if one.acts or not one.broken], look.data
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
    elif certain and finished and traces and not look.complete:
        reason = next((one.broken for one in look.needed if one.broken), "it ends before its last part")
        if look.ends_early and not content.inside and not strange and not altered:
            yield damaged(f"ends after {content.size:,} bytes, within a pickle: it is cut short")
        else:
            yield Fact("pickle-broken", f"{content.subject} breaks off as a pickle ({reason}).")
    if certain and whole and finished and not strange and not altered:
        yield _harmless(content, named)


def _harmless(content: Content, named: Iterable[Global]) -> Fact:
    """What convert would refuse is not sent there."""
    told = f"{content.subject} is a pickle that holds tensors and plain values only"
    if not any(found.name.startswith("_rebuild") for found in named):
        return Fact("pickle", f"{told}, and no tensors of torch.", command=EXPLAINED)
    foreign = {found for found in named if not readable(found)}
    if foreign:
        return Fact("pickle", f"{told}; {_listed(foreign)} is read by no restricted reader.", command=EXPLAINED)
    return Fact("pickle", f"{told}.")


def _plausible(found: Global) -> bool:
    """Whether it can be the name of something, unlike two lines of a text that happen to follow the letter c."""
    return found.module == HIDDEN or all(part.isidentifier() for part in f"{found.module}.{found.name}".split("."))


def _listed(names: set[Global]) -> str:
    """Names for a sentence, escaped."""
    shown = sorted(escape(f"{found.module}.{found.name}")[:80] for found in names)
    more = f" and {len(shown) - NAMED:,} more" if len(shown) > NAMED else ""
    return ", ".join(shown[:NAMED]).replace("?.?", "a name that is only known at run time") + more
