"""The commands: parse -> call -> render -> exit code."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sau_scan import __version__
from sau_scan.checkpoint.hub import asked_offline
from sau_scan.cli import arguments as arg
from sau_scan.cli import exits, outputs, parsing, running
from sau_scan.cli.convert_command import convert
from sau_scan.cli.guard import guarded, guarded_early
from sau_scan.cli.rules_command import rules_app
from sau_scan.console import StderrProgress
from sau_scan.errors import UsageError
from sau_scan.findings import FixResult, ScanResult, Severity
from sau_scan.options import DEFAULT_METHOD, Budget, FixOptions, ScanOptions
from sau_scan.reports import read_result

# What the user wants; running.quiet_libraries() sets the same variable for all libraries but the one that fetches.
_OFFLINE = asked_offline(os.environ)
app = typer.Typer(
    name="sau-scan",
    help="Finds hidden triggers in text-to-image checkpoints, shows why, and repairs them.",
    epilog="Exit codes: 0 passed, 1 findings or not repaired, 2 usage, 3 incomplete, 4 internal error, "
    "130 and 143 stopped.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(rules_app, name="rules")


def main() -> None:
    """Entry point of the console script."""
    # An early Ctrl-C, before a command's own guard, deserves the same one line.
    with guarded_early():
        app(prog_name="sau-scan")


def _version(asked: bool) -> None:
    if asked:
        with guarded():
            outputs.emit(f"sau-scan {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def detect(
    model: arg.Model,
    output: arg.Output = None,
    format_: arg.Format = arg.FormatName.TEXT,
    min_severity: arg.MinSeverity = Severity.INFO,
    quiet: arg.Quiet = False,
    debug: arg.Debug = False,
    fail_on: arg.FailOn = Severity.HIGH,
    min_coverage: arg.MinCoverage = "0",
    exit_zero: arg.ExitZero = False,
    declared_trigger: arg.Declared = None,
    budget: arg.BudgetOption = Budget.STANDARD,
    max_time: arg.MaxTime = None,
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.Dtype = "auto",
    rules: arg.Rules = None,
    variant: arg.Variant = None,
    base: arg.Base = None,
    revision: arg.Revision = None,
    dry_run: arg.DryScan = False,
    fix: arg.Fix = False,
    out: arg.Out = None,
    method: arg.Method = None,
    keep_failed: arg.KeepFailed = False,
) -> None:
    """Look for hidden triggers in MODEL."""
    files = output or []
    with guarded(debug=debug), StderrProgress(quiet=quiet) as progress:
        gate = exits.Gate(fail_on, parsing.share(min_coverage), exit_zero)
        options = ScanOptions(
            budget=budget,
            max_time=parsing.seconds(max_time),
            min_coverage=gate.min_coverage,
            declared_triggers=parsing.declared(declared_trigger or ()),
            seed=seed,
            device=device,
            dtype=dtype,
            rules=rules,
            variant=variant,
            base=base,
            revision=revision,
            offline=_OFFLINE,
        )
        parsing.require_no_idle_options(fix=fix, out=out, method=method, keep_failed=keep_failed, dry_run=dry_run)
        outputs.check_outputs(files, model)
        running.quiet_libraries()
        if dry_run:
            running.estimate(model, options, format_, files, progress)
            raise typer.Exit(exits.Code.OK)
        if out is not None:  # before minutes are spent on the scan
            running.check_method(method or DEFAULT_METHOD)
            running.check_out(model, out)
        by_machine = files or format_ is not arg.FormatName.TEXT  # people have the error
        refusal = partial(outputs.write_refusal, files=files, format_name=format_) if by_machine else None
        scanned = running.detect(model, options, progress, refusal)
        result: ScanResult | FixResult = scanned
        if fix:
            if format_ is arg.FormatName.TEXT:  # what was found is told before minutes are spent on repairing it
                outputs.show(scanned, format_, min_severity)
            options_of_fix = FixOptions(out=out, method=method or DEFAULT_METHOD, keep_failed=keep_failed, scan=options)
            result = running.fix(model, options_of_fix, scanned, progress, refusal)
        outcome = (
            exits.after_detect_and_fix(result, gate)
            if isinstance(result, FixResult)
            else exits.after_detect(result, gate)
        )
        running.finish(result, files, format_, min_severity, outcome, progress)


@app.command()
def fix(
    model: arg.Model,
    out: arg.Out = None,
    from_: arg.From = None,
    trigger: arg.TriggerText = None,
    slot: arg.SlotOption = None,
    replaces: arg.Replaces = None,
    dry_run: arg.DryRun = False,
    keep_failed: arg.KeepFailed = False,
    method: arg.Method = None,
    output: arg.Output = None,
    format_: arg.Format = arg.FormatName.TEXT,
    min_severity: arg.MinSeverity = Severity.INFO,
    quiet: arg.Quiet = False,
    debug: arg.Debug = False,
    budget: arg.BudgetOfFix = None,
    max_time: arg.MaxTimeOfFix = None,
    declared_trigger: arg.Declared = None,
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.Dtype = "auto",
    rules: arg.Rules = None,
    variant: arg.Variant = None,
    base: arg.Base = None,
    revision: arg.Revision = None,
) -> None:
    """Remove triggers from MODEL, in a repaired copy: --out OUT.

    It scans first, unless --from or --trigger says what to repair. The copy is kept only if a new scan of it is clean.
    """
    files = output or []
    with guarded(debug=debug), StderrProgress(quiet=quiet) as progress:
        if trigger and from_ is not None:
            raise UsageError("--from and --trigger exclude each other.", hint="Give one of them: a report, or a text.")
        given = parsing.triggers(trigger or (), slot or (), replaces or ())
        if out is None and not dry_run:
            raise UsageError("--out is missing; nothing is repaired in place.", hint="Name a new place: --out OUT.")
        report = running.scan_report(from_) if from_ is not None else None
        usual = Budget(report.coverage.budget) if report is not None else Budget.STANDARD
        outputs.check_outputs(files, model)
        options = ScanOptions(
            budget=budget or usual,
            max_time=parsing.seconds(max_time),
            declared_triggers=parsing.declared(declared_trigger or ()),
            seed=seed,
            device=device,
            dtype=dtype,
            rules=rules,
            variant=variant,
            base=base,
            revision=revision,
            offline=_OFFLINE,
        )
        repair = FixOptions(
            out=out,
            triggers=given,
            dry_run=dry_run,
            keep_failed=keep_failed,
            method=method or DEFAULT_METHOD,
            scan=options,
        )
        running.quiet_libraries()
        by_machine = files or format_ is not arg.FormatName.TEXT
        refusal = partial(outputs.write_refusal, files=files, format_name=format_) if by_machine else None
        result = running.fix(model, repair, report, progress, refusal)
        running.finish(result, files, format_, min_severity, exits.after_fix(result), progress)


@app.command()
def report(
    result: arg.ReportFile,
    format_: arg.Format = arg.FormatName.TEXT,
    output: arg.Output = None,
    min_severity: arg.MinSeverity = Severity.INFO,
    debug: arg.Debug = False,
) -> None:
    """Show a saved JSON report in another format. Exits 0 whatever the report says."""
    files = output or []
    with guarded(debug=debug):
        outputs.check_outputs(files, None)
        loaded = read_result(result)
        outputs.write_reports(loaded, files)
        outputs.show(loaded, format_, min_severity)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="New folder for the report, the pictures and the repaired checkpoint.")
    ] = Path("sau-scan-demo"),
    quiet: arg.Quiet = False,
    debug: arg.Debug = False,
) -> None:
    """Find, explain and repair the backdoored checkpoint that is embedded in sau-scan."""
    with guarded(debug=debug), StderrProgress(quiet=quiet) as progress:
        running.quiet_libraries()
        from sau_scan import demo as demonstration

        found = demonstration.scan(out, progress)
        outputs.show(found, arg.FormatName.TEXT, Severity.LOW)
        done = demonstration.repair(found, out, progress)
        outcome = exits.after_demo(done.found, done.result)
        running.finish(done.result, [], arg.FormatName.TEXT, Severity.LOW, outcome, progress, written=done.files)


app.command()(convert)
