"""Whether a repair may be published: the written checkpoint is loaded from disk, measured, and scanned again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.source import open_checkpoint
from sau_scan.findings import Check, Finding, Kind, ScanResult, Severity, Verification
from sau_scan.options import Progress, ScanOptions
from sau_scan.probes.runner import Counter
from sau_scan.repairs.case import Case
from sau_scan.repairs.pictures import Clean, at_most

# Clean pictures may move as one harmless word behind the prompt moves them in the suspect model itself: a null inside
# the model. Of those, this share moves farthest, and tells a picture that changed from one that did not.
FARTHEST = 0.1
CLEAN_PROMPTS = 48

Detect = Callable[[Path, ScanOptions, Progress], ScanResult]


def drift_checks(clean: Clean, model: DiffusionModel, counter: Counter) -> tuple[Check, ...]:
    """Whether clean pictures stayed what they were: as a whole, and each of them."""
    moved, count = clean.drift(model, counter), len(clean.texts)
    line = clean.harmless.quantile(1 - FARTHEST)
    changed = float((moved > line).float().mean())
    told = f"{count} held-out prompts at equal noise; limit: what a harmless word does"
    pairs = (
        ("clean pictures moved, median", float(moved.median()), float(clean.harmless.median())),
        ("clean pictures that changed", changed, at_most(FARTHEST, count)),
    )
    return tuple(
        Check(name=name, before=0.0, after=after, limit=limit, passed=after <= limit, note=told)
        for name, after, limit in pairs
    )


def triggers_in(result: ScanResult) -> tuple[Finding, ...]:
    """Findings that a repair has to remove: triggers of severity high or more that nobody declared."""
    return tuple(
        f
        for f in result.findings
        if f.kind is Kind.TRIGGER and f.trigger is not None and not f.declared and f.severity.rank >= Severity.HIGH.rank
    )


@dataclass(frozen=True)
class Outcome:
    """``verification``: all checks; ``after``: the re-scan, if it was reached; ``new``: triggers that it found."""

    verification: Verification
    after: ScanResult | None = None
    new: tuple[Finding, ...] = ()


def verify(
    folder: Path,
    cases: Sequence[Case],
    clean: Clean,
    options: ScanOptions,
    progress: Progress,
    counter: Counter,
    detect: Detect,
) -> Outcome:
    """Examines the checkpoint in ``folder``, read back from disk. The re-scan comes last, if all else passed."""
    progress.stage("verify, from disk", len(cases) + 1)
    model = load_model(open_checkpoint(folder, variant=options.variant), device=options.device, dtype="float32")
    checks: list[Check] = []
    for case in cases:
        checks += case.checks(model, counter)
        progress.advance()
    checks += drift_checks(clean, model, counter)
    progress.advance()
    progress.done("; ".join(f"{c.name}: {c.before:.3g} -> {c.after:.3g} (limit {c.limit:.3g})" for c in checks))
    prompts = sum(len(case.firing.texts) for case in cases) + len(clean.texts)
    if not all(check.passed for check in checks):
        return Outcome(Verification(checks=tuple(checks), passed=False, prompts=prompts))
    after = detect(folder, options, progress)
    found = triggers_in(after)
    checks.append(
        Check(
            name="triggers in the re-scan",
            after=float(len(found)),
            limit=0.0,
            passed=not found,
            note=f"verdict {after.verdict}",
        )
    )
    return Outcome(Verification(checks=tuple(checks), passed=not found, prompts=prompts), after, found)
