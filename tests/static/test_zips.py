"""What reading an archive's tables may cost, and which of its ends count."""

from __future__ import annotations

import io
import struct

import pytest

from sau_scan.static.content import Budget, Content
from sau_scan.static.facts import Unfinished
from sau_scan.static.zips import LOCAL, MOST_ENTRIES, read_directory
from tests.corpus.zips import Entry, zip_bytes


class Counted(Budget):
    checks = 0

    def check(self) -> None:
        self.checks += 1


def content(data: bytes, budget: Budget | None = None) -> Content:
    return Content("model.ckpt", len(data), io.BytesIO(data), budget or Budget(len(data)))


def header(name: int, extra: int) -> bytes:
    """A local header that announces so many bytes of a name and of an extra field."""
    return LOCAL + struct.pack("<5H3L2H", *[0] * 8, name, extra)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (header(0xFFFF, 0) * 4_000, "a name of 65,535 bytes"),
        (header(4_000, 0) * 9_000, "entries outside its directory"),
        (header(0, 0xFFFF) * (MOST_ENTRIES + 1), "more than 100,000 entries"),
    ],
)
def test_headers_in_each_others_names(data: bytes, told: str) -> None:
    """Each may claim what follows, and what is kept of it would be many times the file."""
    with pytest.raises(Unfinished, match=told):
        read_directory(content(data))


def test_gaps_are_counted_together() -> None:
    """Some entries are listed, and between any two of them lie headers that are not."""
    gap = header(0, 0) * (MOST_ENTRIES // 4)
    archive = zip_bytes(*(Entry(f"{n}", gap, listed=n % 2 == 0) for n in range(10)))
    with pytest.raises(Unfinished, match="more than 100,000 entries"):
        read_directory(content(archive))


def test_the_time_is_looked_at_for_every_header() -> None:
    budget = Counted()
    read_directory(content(header(0, 9) * 50 + zip_bytes(*(Entry(f"{n}", b"x") for n in range(50))), budget))
    assert budget.checks >= 100
