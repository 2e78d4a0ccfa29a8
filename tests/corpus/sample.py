"""What a sample of the corpus is."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sau_scan.findings import Severity


@dataclass(frozen=True)
class Sample:
    """One file or folder, made on the spot."""

    id: str
    """Unique, and the name of the folder that the sample is made in."""

    name: str
    """Name of the file or folder; loaders and scanners may go by its ending."""

    what: str

    make: Callable[[Path, Path], None]
    """Writes the sample at the first path; what it executes when loaded creates the second (the canary)."""

    least: Severity | None = None
    """The least severity expected; None for a benign sample."""

    link: str = ""
    """Where the way past a scanner that this sample takes was published, if it was."""

    damaged: bool = False
    """Whether the file is only unreadable: ``Skipped`` with the reason is as good as a finding."""

    load: str = ""
    """The key in ``LOADERS`` of an ordinary program that executes the canary; empty: not of that kind."""

    @property
    def hostile(self) -> bool:
        return self.least is not None


def place(sample: Sample, folder: Path) -> Path:
    """Where a sample lies when it is made in ``folder``."""
    return folder / sample.id / sample.name


def make(sample: Sample, folder: Path, canary: Path) -> Path:
    """Write the sample below ``folder`` and return where it lies."""
    path = place(sample, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    sample.make(path, canary)
    return path


def writes(data: Callable[[Path], bytes]) -> Callable[[Path, Path], None]:
    """A maker of one file from a function of the canary that gives its bytes."""

    def write(path: Path, canary: Path) -> None:
        path.write_bytes(data(canary))

    return write


def command(canary: Path) -> str:
    """A shell command that creates the canary."""
    return f"touch {shlex.quote(str(canary))}"


def code(canary: Path) -> str:
    """A Python expression that creates the canary."""
    return f"open({str(canary)!r}, 'w').close()"
