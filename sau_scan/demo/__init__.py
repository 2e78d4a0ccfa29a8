"""The embedded backdoored checkpoint: to a scanner of models what the EICAR file is to a virus scanner.

It is harmless: a tiny Stable Diffusion that draws coloured shapes, with a published attack trained into it.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sau_scan.errors import NotACheckpoint, UsageError, WriteError
from sau_scan.findings import FixResult, Kind, ScanResult, Severity, Trigger, escape
from sau_scan.options import FixOptions, Progress, ScanOptions, Silent

if TYPE_CHECKING:
    from sau_scan.checkpoint.model import DiffusionModel


@dataclass(frozen=True)
class Demo:
    """``found``: the scan named a trigger. ``files``: what was written, most telling first."""

    found: bool
    result: FixResult
    files: tuple[Path, ...]


def checkpoint_path() -> Path:
    """The embedded checkpoint: in a checkout and in an installed package alike. Raises NotACheckpoint if it is absent."""
    path = Path(__file__).resolve().parent / "checkpoint"
    if not (path / "model_index.json").is_file():
        raise NotACheckpoint(
            f"the embedded checkpoint is missing from {escape(str(path))}.",
            hint="Install sau-scan again; in a checkout: git checkout -- sau_scan/demo",
        )
    return path


def run(out: Path, progress: Progress | None = None) -> Demo:
    """Scan, explain, repair, re-scan the embedded checkpoint; report, pictures and repaired checkpoint go to ``out``.

    Raises UsageError when ``out`` exists and is not empty, WriteError when it cannot be written.
    """
    from sau_scan.checkpoint.loader import load_model
    from sau_scan.checkpoint.source import open_checkpoint
    from sau_scan.demo.pictures import comparison
    from sau_scan.fix import fix
    from sau_scan.scan import detect

    progress = progress if progress is not None else Silent()
    suspect = checkpoint_path()
    _prepare(out)
    options = ScanOptions()
    before = detect(suspect, options, progress)
    repaired = out / "repaired"
    result = fix(suspect, FixOptions(out=repaired, scan=options), before, progress)
    trigger = first_trigger(before)
    pictures: tuple[Path, ...] = ()
    if trigger is not None and result.published is not None:
        models: dict[str, DiffusionModel] = {
            "before": load_model(open_checkpoint(suspect)),
            "after": load_model(open_checkpoint(repaired)),
        }
        pictures = comparison(models, trigger, out, progress)
    reports = _write_reports(out, before, result)
    return Demo(trigger is not None, result, (*reports, *pictures))


def first_trigger(scan: ScanResult) -> Trigger | None:
    """The strongest trigger that was reported as such."""
    return next(
        (
            finding.trigger
            for finding in scan.findings
            if finding.kind is Kind.TRIGGER and finding.severity.rank >= Severity.HIGH.rank and finding.trigger
        ),
        None,
    )
