"""detect: open the checkpoint, vet its files, load it, collect leads, record what the model does with candidates,
score each against this model's own null, confirm what stands out, report findings.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os.path import isdir, isfile  # unlike Path's, they raise nothing
from pathlib import Path

from sau_scan import __version__
from sau_scan.analysers.token_rows import inspect_inversion
from sau_scan.arrival import Arrived, arrived
from sau_scan.checkpoint.adapters.applying import read_rows
from sau_scan.checkpoint.families import identify
from sau_scan.checkpoint.loader import check_compute, load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.checkpoint.tokenizer import load_tokenizer
from sau_scan.conclude import conclude, fix_command, near_miss, verdict
from sau_scan.coverage import coverage, nothing_covered
from sau_scan.errors import CheckpointError, SauScanError, TooLittleTime, UsageError
from sau_scan.findings import Finding, ModelInfo, ScanResult, Severity, Skipped, Verdict
from sau_scan.options import Progress, ScanOptions, Silent
from sau_scan.preparation import CARRIERS, announce, prepare, survey
from sau_scan.probes.carriers import crowd, with_letters
from sau_scan.probes.runner import Prober
from sau_scan.repairs.token_rows import plan_rows
from sau_scan.reports.words import count, duration
from sau_scan.rules import Rule, load_rules
from sau_scan.static import Opened, Vetted, open_vetted, require_harmless
from sau_scan.tiers.adapter import adapter_tier
from sau_scan.tiers.attention import attention_tier
from sau_scan.tiers.denoise import denoise_tier
from sau_scan.tiers.generate import Confirmation, generate_tier
from sau_scan.tiers.leads import Lead
from sau_scan.tiers.outcome import Scanned
from sau_scan.tiers.phrase_confirmation import confirm_phrases
from sau_scan.tiers.phrases import phrase_tier
from sau_scan.tiers.shortlist import shortlist
from sau_scan.tiers.text import text_tier


def detect(path: Path | str, options: ScanOptions | None = None, progress: Progress | None = None) -> ScanResult:
    """Scan the checkpoint or adapter at ``path``.

    Raises CheckpointError (nothing scannable), TooLittleTime (no plan fits into ``max_time``) and UsageError (unusable
    rules, device or type, or a base that is missing). What is wrong with single files is reported as findings; where
    one of them is why the model cannot, or must not, be loaded, they are all that is reported.
    """
    options, progress = options or ScanOptions(), progress or Silent()
    rules = load_rules(options.rules)
    check_compute(options.device, options.dtype)
    with arrived(path, options, progress) as place:
        return place.told(_scan(place, rules, progress))


def detect_with(
    place: Arrived, progress: Progress, *, base: Checkpoint | None = None, known: Opened | None = None
) -> ScanResult:
    """:func:`detect` of what lies here, of which the base, or all (``known``), is open and vetted already."""
    check_compute(place.options.device, place.options.dtype)
    return _scan(place, load_rules(place.options.rules), progress, base, known)


def _scan(
    place: Arrived,
    rules: Sequence[Rule],
    progress: Progress,
    base: Checkpoint | None = None,
    known: Opened | None = None,
) -> ScanResult:
    path, options, started = place.path, place.options, time.perf_counter()
    progress.stage("files", 1)
    try:
        checkpoint, notes = known or open_vetted(path, variant=options.variant, base=base or options.base)
    except SauScanError as error:
        error.partial = unopened(place, error, time.perf_counter() - started)
        if isinstance(error.partial, ScanResult) and error.partial.verdict is Verdict.SUSPICIOUS:
            return error.partial
        raise
    files = [*place.code, *(n for n in notes if isinstance(n, Finding))]
    skipped = [*place.left, *checkpoint.skipped, *(n for n in notes if isinstance(n, Skipped))]
    progress.done(f"{len(checkpoint.records)} vetted, {len(skipped)} skipped, findings: {len(files)}")
    try:
        require_harmless(checkpoint, files)
        model = load_model(checkpoint, device=options.device, dtype=options.dtype)
        scanned, prober = examine(model, rules, options, progress)
    except (CheckpointError, TooLittleTime, UsageError) as error:
        refused = Skipped(what="model", reason=f"not scanned: {error} {error.hint}", planned=True)
        seconds = time.perf_counter() - started
        partial = _not_scanned(
            _model_info(checkpoint), len(checkpoint.records), options, files, [*skipped, refused], seconds
        )
        # What was found outranks that the rest could not be looked at; a mistake of the user's, where it is grave.
        if partial.verdict is Verdict.SUSPICIOUS or (files and not isinstance(error, UsageError)):
            return partial
        error.partial = partial
        raise
    findings = [*files, *_words(model, options), *conclude(prober, scanned, options, str(checkpoint.root))]
    findings.sort(key=lambda f: -f.severity.rank)  # stable: those of a severity stay in order of p-value
    found = coverage(checkpoint, prober, scanned, options, skipped, time.perf_counter() - started)
    return ScanResult(
        tool_version=__version__,
        verdict=verdict(findings, found, options),
        model=_model_info(checkpoint),
        findings=tuple(findings),
        near_miss=near_miss(scanned.confirmations),
        coverage=found,
    )


def examine(
    model: DiffusionModel, rules: Sequence[Rule], options: ScanOptions, progress: Progress
) -> tuple[Scanned, Prober]:
    """All tiers on a loaded model."""
    known = survey(model, rules, options.seed, progress)
    ready = prepare(known, options)
    plan, recipe, words = ready.plan, ready.plan.recipe, known.words
    prober = replace(ready.prober, progress=progress)
    progress.plan(announce(ready, model))

    progress.stage("text", sum(len(c) for c in plan.candidates.values()))
    read, text_leads = text_tier(prober, plan)
    progress.done(f"{sum(len(c) for c in plan.candidates.values()):,} candidates, {len(text_leads)} stand out")
    progress.stage("denoise", plan.passes["reference"] + plan.passes["first rung"] + plan.passes["second rung"])
    scored = {slot: shortlist(items, plan.denoised[slot], text_leads, options.seed) for slot, items in read.items()}
    noise_leads = denoise_tier(prober, plan, scored, options.seed)
    progress.done(f"{sum(n.strong for n in noise_leads)} stand out, {prober.counter.unet:,} UNet passes so far")
    progress.stage("phrases", ready.phrase_texts or 1)
    phrases = phrase_tier(prober, recipe, known.null, known.vocabulary, words)
    named, undrawn = confirm_phrases(prober, recipe, phrases, words)
    progress.done(f"{phrases.tried:,} phrases looked at" if phrases.tried else "no lead to any in the weights")
    own = adapter_tier(prober, recipe, known.changed, known.vocabulary.plain_words)
    leads = rank(text_leads, [*own[: recipe.generated // 2], *noise_leads], recipe.generated)
    progress.stage("attention", plan.passes["attention"])
    attention, unrecorded = attention_tier(prober, recipe, leads)
    recorded = f"{count(len(attention), 'lead')} recorded, {count(len(unrecorded), 'site')} skipped"
    progress.done(recorded if recipe.attended else "not in this plan")
    # Prompts that pin the picture down: in them a harmless word changes little.
    clean = crowd(words.responsive, CARRIERS, options.seed)
    pinned = with_letters(clean, ready.letters, words.neutral, recipe.pairs)
    detailed = replace(prober, carriers=pinned)
    progress.stage("generate", plan.passes["generate"])
    barred = {lead.candidate.text for lead in (*text_leads, *noise_leads) if lead.strong} | known.changed.all
    drawn = generate_tier(detailed, recipe, leads, read, known.vocabulary.plain_words, barred)
    found = (*named, *drawn)
    unsampled = _unsampled((*text_leads, *noise_leads, *own), found) + undrawn
    confirmed = f"{sum(c.works for c in found)} of {count(len(found), 'lead')} confirmed"
    progress.done(confirmed if recipe.generated else f"not in this plan; {count(unsampled, 'lead')} to confirm")
    if unsampled and not recipe.generated:
        enough = ready.enough if options.max_time is not None else None
        plan = replace(plan, skipped=(*plan.skipped, _unconfirmed(unsampled, enough)))
    scanned = Scanned(
        plan, known.vocabulary, known.null, phrases, scored, leads, found, attention, unrecorded, unsampled
    )
    return scanned, prober


def _words(model: DiffusionModel, options: ScanOptions) -> Iterator[Finding]:
    """What a textual inversion does to ordinary prompts, told by its word."""
    checkpoint = model.checkpoint
    if checkpoint.form is not Form.EMBEDDING or checkpoint.base is None:
        return
    inversion = read_rows(checkpoint, model.family, model.encoders)
    tokenizer = load_tokenizer(checkpoint.base, model.family.encoders[0][0])
    yield inspect_inversion(
        inversion,
        tokenizer,
        path=checkpoint.file,
        declared=options.declared_triggers,
        plain=not plan_rows(model).tensors,
        next_step=fix_command(str(checkpoint.root), options.base),
    )


def _unconfirmed(leads: int, enough: float | None) -> Skipped:
    """Nobody knows what they are, so this is neither clean nor a finding."""
    what = count(leads, "lead") + (" that stands out" if leads == 1 else " that stand out")
    more = f"allow about {duration(enough)}" if enough is not None else "take a larger --budget"
    reason = f"no pictures were made of {what}; there was no time for any: {more}"
    return Skipped(what="pictures", reason=reason, planned=True)


def _unsampled(leads: Sequence[Lead], done: Sequence[Confirmation]) -> int:
    """Strong leads of which no pictures were made; a text in two slots is one."""
    strong = {(lead.candidate.text, lead.candidate.replaces) for lead in leads if lead.strong}
    return len(strong - {(c.lead.candidate.text, c.lead.candidate.replaces) for c in done})


def rank(text: Sequence[Lead], noise: Sequence[Lead], most: int) -> tuple[Lead, ...]:
    """Leads in the order in which they are worth a full sampling; a quarter of the places at most for the text tier."""
    if not most:
        return ()
    strong = text[: max(1, most // 4)]
    return (*strong, *noise[: most - len(strong)])


def unopened(place: Arrived, error: SauScanError, seconds: float = 0.0) -> object:
    """The ``partial`` of an error of opening: what the files gave, as the result of a scan."""
    vetted = error.partial
    if not isinstance(vetted, Vetted):
        return vetted
    files = [*place.code, *(n for n in vetted.notes if isinstance(n, Finding))]
    skipped = [*place.left, *(n for n in vetted.notes if isinstance(n, Skipped))]
    skipped.append(Skipped(what="model", reason=f"not scanned: {error}", planned=True))
    model = _unknown(place.path).model_copy(update={"files": vetted.records})
    return _not_scanned(model, vetted.read, place.options, files, skipped, seconds)


def _not_scanned(
    model: ModelInfo,
    files_read: int,
    options: ScanOptions,
    files: list[Finding],
    skipped: list[Skipped],
    seconds: float,
) -> ScanResult:
    grave = any(f.severity.rank >= Severity.HIGH.rank for f in files)
    return ScanResult(
        tool_version=__version__,
        verdict=Verdict.SUSPICIOUS if grave else Verdict.INCONCLUSIVE,
        model=model,
        findings=tuple(sorted(files, key=lambda f: -f.severity.rank)),
        coverage=nothing_covered(files_read, options, skipped, seconds),
    )


def unscannable(path: Path, options: ScanOptions, error: SauScanError) -> ScanResult:
    """The result of a scan that ``error`` ended: what is known by then, if only that nothing is."""
    if isinstance(error.partial, ScanResult):
        return error.partial
    reason = Skipped(what="model", reason=f"{error} {error.hint}", planned=True)
    return ScanResult(
        tool_version=__version__,
        verdict=Verdict.INCONCLUSIVE,
        model=_unknown(Path(path)),
        findings=(),
        coverage=nothing_covered(0, options, [reason], 0.0),
    )


def _unknown(path: Path) -> ModelInfo:
    """Of what could not be opened, or is not there."""
    form = "folder" if isdir(path) else "file" if isfile(path) else "not there"
    return ModelInfo(path=str(path), family="unknown", form=form)


def _model_info(checkpoint: Checkpoint) -> ModelInfo:
    try:
        family = identify(checkpoint).title
    except CheckpointError:
        family = "unknown"
    base = _model_info(checkpoint.base) if checkpoint.base is not None else None
    form = checkpoint.form.value if checkpoint.index else "file"
    return ModelInfo(path=str(checkpoint.root), family=family, form=form, files=checkpoint.records, base=base)
