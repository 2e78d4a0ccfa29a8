"""Whether a repair may be published: the written checkpoint is loaded from disk, measured, and scanned again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.findings import Check, FileRecord, Finding, Kind, ScanResult, Severity, Verification
from sau_scan.options import Progress, ScanOptions
from sau_scan.probes.runner import Counter
from sau_scan.repairs.case import Case
from sau_scan.repairs.pictures import Clean, at_most

# How far the typical clean picture may move, relative to the distance between pictures of different prompts.
DRIFT = 0.02
CLEAN_PROMPTS = 64

Detect = Callable[[Path, ScanOptions, Progress], ScanResult]


def drift_checks(clean: Clean, model: DiffusionModel, counter: Counter, seed: int) -> tuple[Check, ...]:
    """Whether clean pictures stayed what they were, and still show their prompts.

    Some prompts are undecided and flip at a touch, so that the second is held against what a harmless word costs.
    """
    drawn, count = clean.redrawn(model, counter), len(clean.texts)
    moved, lost = clean.moved(drawn), clean.lost(drawn, counter, seed)
    limit = at_most((clean.null * count + 1) / (count + 2), count)
    return (
        _within(
            "clean pictures moved",
            moved,
            DRIFT,
            f"median of {count} held-out prompts at equal noise, relative to the distance between prompts",
        ),
        _within(
            "clean pictures that no longer show their prompt",
            lost,
            limit,
            "read by the suspect model itself; limit: what a harmless word costs",
        ),
    )


def _within(name: str, after: float, limit: float, note: str) -> Check:
    """A check of something that is nothing before the repair, and must stay within ``limit``."""
    return Check(name=name, before=0.0, after=after, limit=limit, passed=after <= limit, note=note)


def triggers_in(result: ScanResult) -> tuple[Finding, ...]:
    """Findings that a repair has to remove: triggers of severity high or more that nobody declared."""
    return tuple(
        f
        for f in result.findings
        if f.kind is Kind.TRIGGER and f.trigger is not None and not f.declared and f.severity.rank >= Severity.HIGH.rank
    )


def words_in(result: ScanResult) -> tuple[Finding, ...]:
    """Findings on embeddings that take over ordinary text, and that nobody declared."""
    return tuple(
        f
        for f in result.findings
        if f.kind is Kind.TOKEN_ROW
        and f.trigger is not None
        and not f.declared
        and f.severity.rank >= Severity.HIGH.rank
    )


@dataclass(frozen=True)
class Outcome:
    """``verification``: all checks; ``after``: the re-scan, if it was reached; ``new``: triggers that it found;
    ``files``: what was examined."""

    verification: Verification
    after: ScanResult | None = None
    new: tuple[Finding, ...] = ()
    files: tuple[FileRecord, ...] = ()

    def is_of(self, files: tuple[FileRecord, ...]) -> bool:
        """Whether these bytes were examined, and scanned if that is what was passed."""
        scanned = self.after.model.files if self.after is not None and self.verification.passed else self.files
        return files == self.files == scanned


def verify(
    folder: Path,
    cases: Sequence[Case],
    clean: Clean,
    options: ScanOptions,
    progress: Progress,
    counter: Counter,
    detect: Detect,
    base: Checkpoint | None = None,
) -> Outcome:
    """Examines the checkpoint in ``folder``, read back from disk. The re-scan comes last, if all else passed.

    ``base``: the very one that the repair was planned with.
    """
    progress.stage("verify, from disk", len(cases) + 1)
    written = open_checkpoint(folder, variant=options.variant, base=base)
    model = load_model(written, device=options.device, dtype="float32")
    checks: list[Check] = []
    for case in cases:
        checks += case.checks(model, counter)
        progress.advance()
    checks += drift_checks(clean, model, counter, options.seed)
    progress.advance()
    progress.done("; ".join(f"{c.name}: {c.before:.3g} -> {c.after:.3g} (limit {c.limit:.3g})" for c in checks))
    prompts = sum(len(case.firing.texts) for case in cases) + len(clean.texts)
    if not all(check.passed for check in checks):
        failed = Verification(checks=tuple(checks), passed=False, prompts=prompts)
        return Outcome(failed, files=written.records)
    after = detect(folder, options, progress)
    found, words = triggers_in(after), words_in(after)
    # A scan that could not be carried out has not shown that nothing is left.
    carried_out = after.complete
    checks.append(
        Check(
            name="triggers in the re-scan",
            after=float(len(found) + len(words)),
            limit=0.0,
            passed=not found and not words and carried_out,
            note=f"verdict {after.verdict}",
        )
    )
    passed = checks[-1].passed
    done = Verification(checks=tuple(checks), passed=passed, prompts=prompts)
    return Outcome(done, after, found, written.records)
