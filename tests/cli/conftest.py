"""A scan and a repair that cost nothing: the modules that the command line imports are replaced."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import sau_scan
from sau_scan.cli.app import app
from sau_scan.findings import FixResult, ScanResult
from tests.reports import samples

Invoke = Callable[..., Result]
FORMATS = pytest.mark.parametrize("format_", ["text", "json", "sarif"])


@dataclass
class Core:
    """What ``detect`` and ``fix`` return or raise, and how they were called."""

    scan: ScanResult | BaseException = samples.CLEAN
    repair: FixResult | BaseException = samples.REPAIRED
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def detect(self, *arguments: Any) -> ScanResult:
        self.calls.append(("detect", arguments))
        if isinstance(self.scan, BaseException):
            raise self.scan
        return self.scan

    def fix(self, *arguments: Any) -> FixResult:
        self.calls.append(("fix", arguments))
        if isinstance(self.repair, BaseException):
            raise self.repair
        return self.repair


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    fake = Core()
    for name, function in (("scan", fake.detect), ("fix", fake.fix)):
        module = ModuleType(f"sau_scan.{name}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys.modules["sau_scan.scan"], "unscannable", lambda *_: samples.INCONCLUSIVE, raising=False)
    monkeypatch.setattr(sys.modules["sau_scan.cli.running"], "require_input", lambda model: None)
    # An earlier test may have bound the real ones.
    for name in ("detect", "fix"):
        monkeypatch.delitem(vars(sau_scan), name, raising=False)
    return fake


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="sau-scan")

    return run
