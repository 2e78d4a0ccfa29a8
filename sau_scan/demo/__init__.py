"""The embedded backdoored checkpoint: to a scanner of models what the EICAR file is to a virus scanner.

It is harmless: a tiny Stable Diffusion that draws coloured shapes, with a published attack trained into it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os.path import isdir  # unlike Path's, it raises nothing
from pathlib import Path

from sau_scan.errors import NotACheckpoint, UsageError, WriteError
from sau_scan.findings import FixResult, Kind, ScanResult, Severity, Trigger, escape
from sau_scan.options import Budget, FixOptions, Progress, ScanOptions, Silent
from sau_scan.reports import render_json, render_sarif, render_text
from sau_scan.reports.files import write_atomically

_MARK = ".sau-scan-demo"


@dataclass(frozen=True)
class Demo:
    """``found``: the scan named a trigger. ``files``: what was written, most telling first."""

    found: bool
    result: FixResult
    files: tuple[Path, ...]


def checkpoint_path() -> Path:
    """The embedded checkpoint, in a checkout as in an installed package. Raises NotACheckpoint if absent."""
    path = Path(__file__).resolve().parent / "checkpoint"
    if not (path / "model_index.json").is_file():
        raise NotACheckpoint(
            f"the embedded checkpoint is missing from {escape(str(path))}.",
            hint="Install sau-scan again; in a checkout: git checkout -- sau_scan/demo",
        )
    return path


def run(out: Path, progress: Progress | None = None) -> Demo:
    """:func:`scan`, then :func:`repair`."""
    return repair(scan(out, progress), out, progress)


def scan(out: Path, progress: Progress | None = None) -> ScanResult:
    """Scans the embedded checkpoint; nothing is written yet.

    Raises UsageError when ``out`` exists and is not empty, WriteError when it cannot be written.
    """
    from sau_scan.scan import detect

    suspect = checkpoint_path()
    _require_place(out)
    return detect(suspect, ScanOptions(budget=Budget.QUICK), progress if progress is not None else Silent())


def repair(found: ScanResult, out: Path, progress: Progress | None = None) -> Demo:
    """Repairs and re-scans; reports, pictures and the repaired checkpoint go to ``out``, or nothing does."""
    progress = progress if progress is not None else Silent()
    with _replaced(out):
        return _repair(found, out, progress)


def _repair(found: ScanResult, out: Path, progress: Progress) -> Demo:
    from sau_scan.checkpoint.loader import load_model
    from sau_scan.checkpoint.opening import open_checkpoint
    from sau_scan.demo.pictures import comparison
    from sau_scan.fix import fix

    suspect, repaired = checkpoint_path(), out / "repaired"
    result = fix(suspect, FixOptions(out=repaired, scan=ScanOptions(budget=Budget.QUICK)), found, progress)
    trigger = first_trigger(found)
    pictures: tuple[Path, ...] = ()
    if trigger is not None:
        places = {"before": suspect, **({"after": repaired} if result.published is not None else {})}
        models = {name: load_model(open_checkpoint(place)) for name, place in places.items()}
        pictures = comparison(models, trigger, out, progress)
    files = (*_write_reports(out, found, result), *pictures)
    return Demo(trigger is not None, result, files)


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


def _require_place(out: Path) -> None:
    shown, parent = escape(str(out)), out.absolute().parent
    try:
        if _is_occupied(out) and not _is_previous(out):
            what = "exists and is not empty" if isdir(out) else "is a file"
            raise UsageError(f"--out {shown} {what}.", hint="Name a new folder: sau-scan demo --out DIR")
        if not isdir(parent):
            raise WriteError(f"{escape(str(parent))} does not exist.", hint="Create it first (mkdir -p).")
        for place in (parent, out) if isdir(out) else (parent,):
            with tempfile.TemporaryFile(dir=place):  # trying is surer than asking
                pass
    except OSError as error:
        raise _unwritable(out, error) from error


@contextmanager
def _replaced(out: Path) -> Iterator[None]:
    """``out``, made anew; whatever ends the block before it is filled, it is as it was before."""
    empty = isdir(out) and not _is_occupied(out)
    _prepare(out)
    place, aside = out.resolve(), _aside(out)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what ended the block is what has to be told
            if empty:
                _clear(place)
            else:
                shutil.rmtree(place, ignore_errors=True)
                if aside.exists():
                    aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Removes what is in ``folder``, which itself may be a working directory, or what a link leads to."""
    for child in tuple(folder.iterdir()):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            with suppress(OSError):
                child.unlink()


def _prepare(out: Path) -> None:
    _require_place(out)
    try:
        occupied = _is_occupied(out)
        if occupied and _aside(out).exists():  # an interrupted run; what lies aside is from before it
            shutil.rmtree(out)
        elif occupied:
            out.rename(_aside(out))
        out.mkdir(exist_ok=True)
        (out / _MARK).write_text("Written by sau-scan demo, which overwrites this folder.\n", "utf-8")
    except OSError as error:
        raise _unwritable(out, error) from error


def _is_occupied(out: Path) -> bool:
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def _unwritable(out: Path, error: OSError) -> WriteError:
    return WriteError(
        f"{escape(str(out))} cannot be written to: {error.strerror}.",
        hint="Name another folder: sau-scan demo --out DIR",
    )


def _aside(out: Path) -> Path:
    """Where the results of the run before lie until there are new ones."""
    resolved = out.resolve()
    return resolved.with_name(f".{resolved.name}.previous")


def _is_previous(out: Path) -> bool:
    """Whether ``out`` is what an earlier demo left; only that may be replaced."""
    return out.is_dir() and not out.is_symlink() and (out / _MARK).is_file()


def _write_reports(out: Path, before: ScanResult, result: FixResult) -> tuple[Path, ...]:
    texts = {
        "scan.json": render_json(before),
        "scan.sarif": render_sarif(before),
        "report.json": render_json(result),
        "report.txt": render_text(before) + "\n" + render_text(result),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    return tuple(out / name for name in texts)
