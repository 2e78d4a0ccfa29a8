"""Repairs a checkpoint: finds triggers, locates their effect, plans new weights, writes, verifies, publishes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from sau_scan import __version__
from sau_scan.arrival import Arrived, arrived
from sau_scan.checkpoint.drafts import Draft
from sau_scan.checkpoint.families import identify
from sau_scan.checkpoint.loader import check_compute, load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.rewriting import copied
from sau_scan.checkpoint.source import ADAPTER_CONFIG, Checkpoint, Form
from sau_scan.checkpoint.writer import check_out
from sau_scan.errors import SauScanError, UnsafeFile, UsageError, WriteError
from sau_scan.findings import (
    Component,
    Cost,
    Finding,
    FixResult,
    RepairSummary,
    ScanResult,
    Skipped,
    Trigger,
    escape,
)
from sau_scan.options import FixOptions, Progress, ScanOptions, Silent
from sau_scan.prior_report import check_report
from sau_scan.probes.adapted import Adapted
from sau_scan.probes.carriers import crowd, sort_words
from sau_scan.provenance import FAILED, NAMES, PROVENANCE, name_matters, record, settled
from sau_scan.repairs.campaign import Campaign
from sau_scan.repairs.files import FileRepairs, plan_files
from sau_scan.repairs.pictures import Clean
from sau_scan.repairs.registry import check_method
from sau_scan.reports.words import cost_text
from sau_scan.rules import load_rules
from sau_scan.scan import detect_with, unopened
from sau_scan.static import Opened, open_vetted, require_harmless
from sau_scan.verify import CLEAN_PROMPTS, Outcome, triggers_in, verify, words_in

# Re-scans that may still find something else; more would mean that repairing does not converge.
ROUNDS = 3


def fix(
    path: Path | str,
    options: FixOptions,
    report: ScanResult | None = None,
    progress: Progress | None = None,
) -> FixResult:
    """Repairs the checkpoint at ``path`` into ``options.out`` and says how it went.

    Triggers come from ``options``, else from ``report`` (which must be of these very files), else from a scan.
    Raises UsageError, ConfigError, CheckpointError, WriteError or TriggerHasNoEffect, with the scan before as
    ``partial``, if there was one; then, as whenever nothing is published, no output is left (``keep_failed``: it is
    left, marked).
    """
    progress = progress or Silent()
    _check_options(options)
    with arrived(path, options.scan, progress) as place:
        done = _fix(place, replace(options, scan=place.options), report, progress)
        return place.told_repair(done)


def _fix(place: Arrived, options: FixOptions, report: ScanResult | None, progress: Progress) -> FixResult:
    checkpoint, notes = _opened(place, options.scan)
    if options.out is not None:
        check_out(place.path, options.out, NAMES)
    if report is not None:
        check_report(report, checkpoint)
    before = report
    if before is None and not options.triggers:
        before = detect_with(place, progress, known=(checkpoint, notes))
    found = triggers_in(before) if before is not None else ()
    triggers = options.triggers or tuple(f.trigger for f in found if f.trigger is not None)
    if triggers and not identify(checkpoint).repairable:
        reason = f"triggers in {identify(checkpoint).title} checkpoints are found, but there is no repair for them yet"
        return FixResult(tool_version=__version__, before=before, reason=reason)
    files = plan_files(checkpoint, [note for note in notes if isinstance(note, Finding)])
    words = words_in(before) if before is not None else ()
    if not triggers and not files and not words:
        reason = "no trigger of severity high or more was found, and no file that has to be left out or converted"
        return FixResult(tool_version=__version__, before=before, reason=reason, nothing_to_repair=True)
    try:
        run = _Run.of(checkpoint, options, before, files, progress)
        for finding in words:
            assert finding.trigger is not None
            run.campaign.plain_rows(finding.trigger)
        return run.until_clean(triggers)
    except SauScanError as error:
        error.partial = before
        raise


def _opened(place: Arrived, options: ScanOptions) -> Opened:
    """The checkpoint and what its files gave. What a scan says of one that must not be opened is the error's
    ``partial``."""
    try:
        checkpoint, notes = open_vetted(place.path, variant=options.variant, base=options.base)
    except SauScanError as error:
        error.partial = unopened(place, error)
        raise
    try:
        require_harmless(checkpoint, _of_copies(checkpoint, notes))
    except UnsafeFile as error:  # a scan of this ends for the same reason, before anything is loaded
        error.partial = detect_with(place, Silent(), known=(checkpoint, notes))
        raise
    return checkpoint, notes


def _of_copies(checkpoint: Checkpoint, notes: Iterable[Finding | Skipped]) -> Iterator[Finding]:
    """Findings, but those about files that are neither loaded nor copied."""
    copies = {record.path for record in copied(checkpoint)}
    for note in notes:
        if isinstance(note, Finding):
            file = note.location.path if note.location is not None and checkpoint.form is Form.FOLDER else None
            if file is None or file in copies:
                yield note


def _check_options(options: FixOptions) -> None:
    check_method(options.method)
    check_compute(options.scan.device, options.scan.dtype)
    if options.out is None and not options.dry_run:
        raise UsageError("There is no place to write to.", hint="Name a new folder with --out, or use --dry-run.")


@dataclass
class _Run:
    """One run of ``fix``, from the moment when it is known what to repair."""

    checkpoint: Checkpoint
    options: FixOptions
    before: ScanResult | None
    progress: Progress
    campaign: Campaign
    files: FileRepairs
    hints: dict[Trigger, Component] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        options: FixOptions,
        before: ScanResult | None,
        files: FileRepairs,
        progress: Progress,
    ) -> _Run:
        started, scan = time.monotonic(), options.scan
        # Repairs add up small steps, which half precision would round away.
        model = load_model(checkpoint, device=scan.device, dtype="float32")
        words = sort_words(model, scan.seed)
        campaign = Campaign(model, options.method, words, load_rules(scan.rules), scan.seed, progress)
        made = cls(checkpoint, options, before, progress, campaign, files, started=started)
        made._learn(triggers_in(before) if before is not None else ())
        return made

    def _learn(self, findings: Iterable[Finding]) -> None:
        self.hints |= {f.trigger: f.component for f in findings if f.trigger is not None}

    def until_clean(self, triggers: tuple[Trigger, ...]) -> FixResult:
        """Repairs, verifies, and repairs what the re-scan finds beside; at most ``ROUNDS`` times."""
        wanted, given, clean = triggers, bool(self.options.triggers), None
        if not self.options.dry_run:
            self.progress.plan(self._verification())
        for rounds_left in reversed(range(ROUNDS)):
            self.campaign.found_in = self.campaign.patch
            for trigger in wanted:
                hint = self.hints.get(trigger)
                self.campaign.repair(trigger, hint=hint, given=given, once=self.options.dry_run)
            if not self.campaign.patch.tensors and (wanted or not self.files):
                return self._result(reason=self._nothing_to_change())
            if self.options.dry_run:
                return self._result(reason="planned only; nothing was written")
            clean = clean or self._clean()
            result, wanted = self._examine(clean, last=rounds_left == 0)
            if result is not None:
                return result
            given = False
        raise AssertionError("the last round has a result")

    def _verification(self) -> str:
        """What comes after a repair, and what it takes, as far as it is known by then."""
        text = "after each repair, its effect is measured from disk; if it is gone, a scan of the result follows"
        scan = self.options.scan
        if self.before is None or self.before.coverage.budget != scan.budget or scan.max_time is not None:
            return text
        return f"{text}; the scan before took {cost_text(self.before.coverage.used)}"

    def _nothing_to_change(self) -> str:
        if self.checkpoint.base is None:
            return f"{self.options.method} finds nothing to change; leave out --method"
        file, base = escape(self.checkpoint.file), escape(str(self.checkpoint.base.root))
        return f"what would have to change is not in {file} but in {base}; do not use {file} with it, or repair that"

    def _clean(self) -> Clean:
        # Several words that the model responds to: prompts that say what the picture shows, so it can be compared.
        made = crowd(self.campaign.words.responsive, 3 * CLEAN_PROMPTS, self.options.scan.seed + 101)
        texts = [t for t in made if all(case.source.is_clean(t) for case in self.campaign.cases)][:CLEAN_PROMPTS]
        neutral = self.campaign.words.neutral
        return Clean.of(self.campaign.model, texts, neutral, self.campaign.counter, self.options.scan.seed)

    def _examine(self, clean: Clean, *, last: bool) -> tuple[FixResult | None, tuple[Trigger, ...]]:
        """Writes and verifies a draft. The result, or the triggers that another round should remove."""
        out, scan, cases = self.options.out, self.options.scan, self.campaign.cases
        assert out is not None
        files = self.files
        with Draft(self.checkpoint, self.campaign.patch, out, files.dropped, files.replaced) as draft:
            # The closing scan is the proof: it is never cut short.
            whole = replace(scan, max_time=None)
            base, counter = self.checkpoint.base, self.campaign.counter
            outcome = verify(draft.path, cases, clean, whole, self.progress, counter, self._scan_again, base)
            if outcome.verification.passed:
                mind = name_matters(self.checkpoint, draft.path, out)
                draft.publish({PROVENANCE: self._record(outcome, draft.path)})
                return self._result(outcome, published=str(out), reason=mind), ()
            known = {case.trigger for case in cases}
            fresh = tuple(f.trigger for f in outcome.new if f.trigger is not None and f.trigger not in known)
            self._learn(outcome.new)
            if fresh and not last:
                return None, fresh
            reason = _why(outcome) + self._or_drop()
            if self.options.keep_failed:
                draft.publish({FAILED: self._record(outcome, draft.path)})
                reason += f"; kept in {escape(str(out))}, marked by {FAILED}"
            return self._result(outcome, reason=reason), ()

    def _scan_again(self, draft: Path, options: ScanOptions, progress: Progress) -> ScanResult:
        return detect_with(Arrived(draft, options), progress, base=self.checkpoint.base)

    def _or_drop(self) -> str:
        """What to do with a LoRA that is not repaired: nothing is lost without it but what it is for."""
        base, model = self.checkpoint.base, self.campaign.model
        if self.checkpoint.form is not Form.LORA or base is None:
            return ""
        with Adapted.of(model).at(0.0):
            rates = [case.firing.rate_of(model, self.campaign.counter) for case in self.campaign.cases]
        if any(rate > case.firing.limit for rate, case in zip(rates, self.campaign.cases, strict=True)):
            return f"; {escape(str(base.root))} has the trigger by itself, too"
        return f"; drop {escape(self.checkpoint.file)}: without it, {escape(str(base.root))} does not have the trigger"

    def _result(self, outcome: Outcome | None = None, *, published: str | None = None, reason: str = "") -> FixResult:
        counter = self.campaign.counter
        seconds = round(time.monotonic() - self.started, 1)
        cost = Cost(text_passes=counter.text, unet_passes=counter.unet, seconds=seconds)
        return FixResult(
            tool_version=__version__,
            before=self.before,
            after=settled(outcome.after, self.options.out) if outcome else None,
            repair=self._summary().model_copy(update={"cost": cost}),
            verification=outcome.verification if outcome else None,
            published=published,
            reason=reason,
            dry_run=self.options.dry_run,
        )

    def _summary(self) -> RepairSummary:
        """What was done to weights and files; ``cost`` without seconds."""
        weights, changed = self.campaign.summary(), self.files.changed
        if not changed:
            return weights
        # The settings beside an adapter go into its header.
        header = {self.checkpoint.file} if self.checkpoint.record(ADAPTER_CONFIG) else set()
        files = tuple(sorted({*weights.files_changed, *changed, *header}))
        own = {record.path for record in copied(self.checkpoint)}
        return weights.model_copy(
            update={
                "located": weights.located or "in the files of the checkpoint",
                "steps": (*self.files.steps(), *weights.steps),
                "files_changed": files,
                "files_identical": len(own - set(files)),
            }
        )

    def _record(self, outcome: Outcome, draft: Path) -> bytes:
        """Raises WriteError where what lies there now is not what was verified."""
        checkpoint, options = self.checkpoint, self.options
        written = open_checkpoint(draft, variant=options.scan.variant, base=checkpoint.base).records
        if not outcome.is_of(written):
            raise WriteError(
                f"What was written for {escape(str(options.out))} changed while it was being verified.",
                hint="Make sure that nothing else writes there, then start again.",
            )
        triggers = [case.trigger for case in self.campaign.cases]
        return record(checkpoint, draft, written, options, triggers, self._summary(), outcome.verification)


def _why(outcome: Outcome) -> str:
    failed = [check for check in outcome.verification.checks if not check.passed]
    told = [f"{c.name}: {c.after or 0:.3g}, limit {c.limit or 0:.3g}" for c in failed]
    missing = [s for s in outcome.after.coverage.skipped if s.planned] if outcome.after is not None else []
    told += [f"the re-scan was not carried out as planned: {s.what}: {s.reason}" for s in missing[:1]]
    return "not verified: " + "; ".join(told)
