"""From the values of a command to the core and back to an exit; the core's libraries are imported here, and late."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from sau_scan import __version__
from sau_scan.checkpoint.files import require_input
from sau_scan.checkpoint.hub import has_form_of_hub_id, looks_like_hub_id
from sau_scan.cli import arguments as arg
from sau_scan.cli import exits, outputs
from sau_scan.console import StderrProgress
from sau_scan.errors import (
    CheckpointError,
    ConfigError,
    NotACheckpoint,
    SauScanError,
    TooLittleTime,
    UsageError,
    WriteError,
)
from sau_scan.findings import FixResult, ScanResult, Severity, escape
from sau_scan.options import FixOptions, ScanOptions
from sau_scan.reports import read_result
from sau_scan.reports.files import write_atomically
from sau_scan.reports.text import plain


def estimate(
    model: Path, options: ScanOptions, format_: arg.FormatName, files: list[Path], progress: StderrProgress
) -> None:
    """Tells what each budget would take, on stdout and in ``files``."""
    if format_ is arg.FormatName.SARIF or any(file.suffix.lower() == ".sarif" for file in files):
        raise UsageError("What a scan would take has no form in SARIF.", hint="With --dry-run, use text or JSON.")
    require(model)
    from sau_scan.cli import estimate_text
    from sau_scan.estimate import estimate as run

    found = run(model, options, progress)
    table = estimate_text.as_table(found, options.budget.value)
    for file in files:
        is_json = file.suffix.lower() == ".json"
        write_atomically(file, (estimate_text.as_json(found) if is_json else plain(table)).encode())
    if format_ is arg.FormatName.JSON:
        outputs.emit(estimate_text.as_json(found))
    else:
        outputs.print_rich(table)
    _tell_written(files, progress)


def detect(
    model: Path, options: ScanOptions, progress: StderrProgress, refused: Callable[[ScanResult], None] | None
) -> ScanResult:
    """``refused`` gets the report of a model that cannot be scanned; then the error goes on."""
    try:
        require(model)
        from sau_scan import detect as run

        return run(model, options, progress)
    except (CheckpointError, TooLittleTime, UsageError) as error:
        if refused is not None and _is_of_the_model(error):
            from sau_scan.scan import unscannable

            refused(unscannable(model, options, error))
        raise


def require(model: Path) -> None:
    """Before libraries are loaded for seconds. Raises NotACheckpoint where there is nothing."""
    if looks_like_hub_id(str(model)):
        return
    try:
        require_input(model)
    except NotACheckpoint as error:
        if has_form_of_hub_id(str(model)) and not os.path.lexists(model):
            first = escape(str(model).split("/")[0])
            error.hint += f" {first}/ is here, so this is a path; a repository of the hub is {escape(str(model))}@main."
        raise


def fix(
    model: Path,
    options: FixOptions,
    found: ScanResult | None,
    progress: StderrProgress,
    refused: Callable[[FixResult], None] | None,
) -> FixResult:
    """Repairs what was ``found``, or what a scan finds. ``refused`` gets the report of a model that cannot be scanned,
    or whose repair cannot be written; then the error goes on."""
    try:
        require(model)
        from sau_scan import fix as run

        return run(model, options, found, progress)
    except (CheckpointError, TooLittleTime, WriteError, UsageError) as error:
        if refused is not None and _is_of_the_model(error):
            refused(_not_repaired(model, options, found, error))
        raise


def _is_of_the_model(error: SauScanError) -> bool:
    """Whether a report has to tell it: a mistake of the user's, where the files had to be read to see it."""
    return not isinstance(error, UsageError) or isinstance(error.partial, ScanResult)


def _not_repaired(model: Path, options: FixOptions, found: ScanResult | None, error: SauScanError) -> FixResult:
    """``error`` as a report, with what is known of the model by then."""
    from sau_scan.scan import unscannable

    before = error.partial if isinstance(error.partial, ScanResult) else found
    if before is None and not isinstance(error, WriteError):
        before = unscannable(model, options.scan, error)
    reason = f"{error} {error.hint}"
    return FixResult(tool_version=__version__, before=before, reason=reason, dry_run=options.dry_run)


def check_method(method: str) -> None:
    """Raises UsageError for an unknown method."""
    from sau_scan.repairs.registry import check_method as check

    check(method)


def check_out(model: Path, out: Path) -> None:
    """Raises UsageError or WriteError for an ``--out`` that cannot be written to."""
    from sau_scan.checkpoint.writer import check_out as check
    from sau_scan.provenance import NAMES

    check(model, out, NAMES)


def scan_report(path: Path) -> ScanResult:
    """The report of a scan. Raises ConfigError for that of a repair."""
    loaded = read_result(path)
    if isinstance(loaded, ScanResult):
        return loaded
    raise ConfigError(
        f"{escape(str(path))} is the report of a repair, not of a scan.",
        hint="Give the report of: sau-scan detect MODEL --output report.json",
    )


def finish(
    result: ScanResult | FixResult,
    files: list[Path],
    format_: arg.FormatName,
    min_severity: Severity,
    outcome: exits.Exit,
    progress: StderrProgress,
    written: tuple[Path, ...] = (),
) -> None:
    """Files first: whoever closes the pipe early still has them."""
    outputs.write_reports(result, files)
    outputs.show(result, format_, min_severity)
    _tell_written((*files, *written), progress)
    progress.line(f"exit {outcome.code}", outcome.reason)
    if progress.quiet and outcome.code is exits.Code.INCOMPLETE:  # a gate that fails says why
        StderrProgress().line(f"exit {outcome.code}", outcome.reason)
    raise typer.Exit(outcome.code)


def _tell_written(files: Sequence[Path], progress: StderrProgress) -> None:
    if files:
        progress.line("wrote", "  ".join(map(str, files)))


def quiet_libraries() -> None:
    """Before torch and transformers are imported: no chatter among the reports, and no network, ever."""
    os.environ.update(
        HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1"
    )
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
