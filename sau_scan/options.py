"""Frozen options of a scan and of a repair, and the budgets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from sau_scan.findings import Trigger

DEFAULT_METHOD = "sau"


class Budget(StrEnum):
    """How much a scan may cost in UNet passes."""

    QUICK = "quick"
    STANDARD = "standard"
    DEEP = "deep"


@dataclass(frozen=True)
class ScanOptions:
    """Options of ``detect``. ``max_time`` in seconds shapes the plan beforehand; ``variant`` names weight files;
    ``base`` is the checkpoint that an adapter or bare weights are used with. Of a hub id, ``revision`` is a branch, tag
    or commit; ``offline``: only from the cache (None: as the environment says)."""

    budget: Budget = Budget.STANDARD
    max_time: float | None = None
    min_coverage: float = 0.0
    declared_triggers: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"
    dtype: str = "auto"
    rules: Path | None = None
    variant: str | None = None
    base: Path | None = None
    revision: str | None = None
    offline: bool | None = None


@dataclass(frozen=True)
class FixOptions:
    """Options of ``fix``. ``triggers`` given by the user; empty means: from the report, or from a scan."""

    out: Path | None = None
    triggers: tuple[Trigger, ...] = ()
    dry_run: bool = False
    keep_failed: bool = False
    method: str = DEFAULT_METHOD
    scan: ScanOptions = ScanOptions()


class Progress(Protocol):
    """Injected by the caller; core code never prints."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins that will take ``total`` units (passes, files, steps)."""

    def advance(self, units: int = 1) -> None:
        """``units`` of the current stage are done."""

    def done(self, summary: str) -> None:
        """The current stage is over; one line saying what it found."""

    def plan(self, text: str) -> None:
        """The plan, printed before anything dear happens."""


class Silent:
    """A progress that shows nothing."""

    def stage(self, name: str, total: int) -> None: ...
    def advance(self, units: int = 1) -> None: ...
    def done(self, summary: str) -> None: ...
    def plan(self, text: str) -> None: ...
