"""What reading an archive's tables may cost, and which of its ends count."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zipimport
from pathlib import Path

import pytest
import torch

from sau_scan.findings import Finding
from sau_scan.static.content import Budget, Content
from sau_scan.static.facts import Unfinished
from sau_scan.static.vetting import vet_file
from sau_scan.static.zips import END64, LOCAL, LOCATOR, MOST_ENTRIES, read_directory
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


def test_an_end_is_looked_for_as_far_from_the_last_byte_as_torch_does(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes() + b"x" * (2**16 + 3_900)
    assert torch.load(io.BytesIO(data), weights_only=True)
    assert read_directory(content(data)).problems == ("Bytes stand behind the archive.",)


def record(count: int, size: int, offset: int) -> bytes:
    """The end of a large directory."""
    return END64 + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, count, count, size, offset)


def behind_text(wide: bool) -> bytes:
    """A text and an archive of code. The locator of a large directory points to an empty one; where the real one is
    said right before the locator (``wide``), or in the plain end."""
    before = b"# A model card\n\nNothing to see here.\n" * 20
    decoy = before + record(0, 0, 0)
    archive = zip_bytes(Entry("harmless.py", b"print('ran')"), before=decoy)
    start, at = archive.index(b"PK\1\2"), archive.rindex(b"PK\5\6")
    real = record(1, at - start, start) if wide else b""
    locator = LOCATOR + struct.pack("<LQL", 0, len(before), 1)
    told = (0xFFFF, 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF) if wide else (1, 1, at - start + len(locator), start)
    return archive[:at] + real + locator + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, *told, 0)


@pytest.mark.parametrize("wide", [True, False])
def test_an_archive_of_which_readers_see_different_ends(tmp_path: Path, wide: bool) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(behind_text(wide))
    if wide:
        assert zipfile.ZipFile(path).namelist() == ["harmless.py"]
    elif sys.version_info < (3, 13):  # which knows no large ones
        assert zipimport.zipimporter(str(path)).find_spec("harmless")
    told = " ".join(note.behaviour for note in vet_file(path) if isinstance(note, Finding))
    assert "is a zip archive" in told and "two ends contradict each other" in told


def test_a_few_bytes_that_stand_for_no_end_of_archives(tmp_path: Path) -> None:
    """Within a zip that is damaged, each of those in each other is found in many ways, and so is all within it."""
    data = zip_bytes(Entry("x.bin", b"x"))
    for _ in range(40):
        data = zip_bytes(Entry("inner.zip", data))
    path = tmp_path / "model.zip"
    cut = int(0.36 * len(data))
    path.write_bytes(data[:cut] + data[cut + 73 :])
    told = [one.behaviour for one in vet_file(path) if isinstance(one, Finding) and one.id == "file/analyser-failed"]
    assert "5,000 archives are packed into it" in told[0]
