"""detect: open the checkpoint, vet its files, load it, collect leads, record what the model does with candidates,
score each against this model's own null, confirm what stands out, report findings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sau_scan import __version__
from sau_scan.analysers.null_directions import NullDirections, find_null_directions, stacked_projections
from sau_scan.checkpoint.families import identify
from sau_scan.checkpoint.loader import check_compute, load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.conclude import conclude, near_miss, verdict
from sau_scan.coverage import coverage, nothing_covered
from sau_scan.errors import CheckpointError, DamagedFile, SauScanError, TooLittleTime
from sau_scan.findings import (
    Finding,
    ModelInfo,
    ScanResult,
    Severity,
    Skipped,
    Slot,
    Verdict,
)
from sau_scan.options import Budget, Progress, ScanOptions, Silent
from sau_scan.probes.candidates import (
    Candidate,
    Vocabulary,
    distinct,
    read_vocabulary,
    rule_candidates,
    vocabulary_candidates,
)
from sau_scan.probes.carriers import compose, crowd, high_noise, noise_like, sort_words, with_letters
from sau_scan.probes.plan import RECIPES, SLOTS, Plan, make_plan
from sau_scan.probes.runner import Prober
from sau_scan.rules import Rule, load_rules
from sau_scan.static import check_files
from sau_scan.tiers.attention import attention_tier
from sau_scan.tiers.denoise import denoise_tier
from sau_scan.tiers.generate import Confirmation, generate_tier
from sau_scan.tiers.leads import Lead
from sau_scan.tiers.outcome import Scanned
from sau_scan.tiers.phrase_confirmation import confirm_phrases
from sau_scan.tiers.phrases import phrase_texts, phrase_tier
from sau_scan.tiers.text import text_tier

CARRIERS = 24
TIMED = 32  # UNet passes that measure the machine
EFFICIENCY = 0.7  # of a scan, whose batches are smaller at times and which does more than UNet passes


def detect(path: Path | str, options: ScanOptions | None = None, progress: Progress | None = None) -> ScanResult:
    """Scan the diffusers checkpoint at ``path``.

    Raises CheckpointError (nothing scannable), TooLittleTime (no plan fits into ``max_time``) and UsageError (unusable
    rules, device or type). What is wrong with single files is reported as findings; where one of them is why the model
    cannot be loaded, they are all that is reported.
    """
    options, progress = options or ScanOptions(), progress or Silent()
    started = time.perf_counter()
    rules = load_rules(options.rules)
    check_compute(options.device, options.dtype)
    progress.stage("files", 1)
    checkpoint = open_checkpoint(path, variant=options.variant)
    notes = check_files(checkpoint)
    files = [n for n in notes if isinstance(n, Finding)]
    skipped = [*checkpoint.skipped, *(n for n in notes if isinstance(n, Skipped))]
    progress.done(f"{len(checkpoint.records)} vetted, {len(skipped)} skipped, findings: {len(files)}")
    try:
        model = load_model(checkpoint, device=options.device, dtype=options.dtype)
        scanned, prober = examine(model, rules, options, progress)
    except (CheckpointError, TooLittleTime) as error:
        refused = Skipped(what="model", reason=f"not scanned: {error} {error.hint}", planned=True)
        known = _not_scanned(checkpoint, options, files, [*skipped, refused], time.perf_counter() - started)
        if files:  # what was found outranks that the rest could not be looked at
            return known
        error.partial = known
        raise
    findings = [*files, *conclude(prober, scanned, options, str(checkpoint.root))]
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
    recipe = RECIPES[options.budget]
    vocabulary = read_vocabulary(model)
    progress.stage("weights", 1)
    null = find_null_directions(stacked_projections(model))
    progress.done(_weights_line(null))
    words = sort_words(model, options.seed, vocabulary)
    rate = EFFICIENCY * _passes_a_second(model, options.seed)
    texts = phrase_texts(recipe, vocabulary) if len(null.basis) else 0
    texts_a_second = _texts_a_second(model)
    letters = [c.replaces for c in rule_candidates(rules, recipe.depth, [Slot.REPLACE]) if c.replaces]
    clean = compose(words.responsive, rules, CARRIERS, options.seed)
    if not clean:
        raise DamagedFile(
            "The tokenizer has no words that prompts could be made of.",
            hint="Take the tokenizer folder from the checkpoint that this one was made from, and scan again.",
        )
    carriers = with_letters(clean, letters, words.neutral, recipe.text_carriers)
    candidates = collect(model, vocabulary, rules, carriers, options)
    most = None if options.max_time is None else max(0, int((options.max_time - texts / texts_a_second) * rate))
    plan = make_plan(
        recipe,
        candidates,
        carriers=len(carriers),
        overhead=TIMED,
        phrase_texts=texts,
        most=most,
        seed=options.seed,
    )
    seconds = plan.unet_passes / rate + plan.text_passes / texts_a_second
    if most is not None and plan.unet_passes > most:
        raise _too_little_time(plan, options, seconds)
    recipe = plan.recipe
    prober = Prober(model, carriers, words.neutral[: recipe.neutrals], options.seed, progress=progress)
    prober.counter.unet += TIMED
    progress.plan(_announce(plan, model, seconds))

    progress.stage("text", sum(len(c) for c in plan.candidates.values()))
    scored, text_leads = text_tier(prober, plan)
    progress.done(f"{sum(len(c) for c in plan.candidates.values()):,} candidates, {len(text_leads)} stand out")
    progress.stage("denoise", plan.passes["reference"] + plan.passes["first rung"] + plan.passes["second rung"])
    noise_leads = denoise_tier(prober, plan, scored, options.seed)
    progress.done(f"{prober.counter.unet:,} UNet passes so far")
    progress.stage("phrases", texts or 1)
    phrases = phrase_tier(prober, recipe, null, vocabulary, words)
    named, undrawn = confirm_phrases(prober, recipe, phrases, words)
    progress.done(f"{phrases.tried:,} phrases looked at" if phrases.tried else "no lead to any in the weights")
    leads = rank(text_leads, noise_leads, recipe.generated)
    progress.stage("attention", plan.passes["attention"])
    attention, unrecorded = attention_tier(prober, recipe, leads)
    progress.done(f"{len(attention)} leads recorded, {len(unrecorded)} sites skipped")
    # Prompts that pin the picture down: in them a harmless word changes little.
    pinned = with_letters(crowd(words.responsive, CARRIERS, options.seed), letters, words.neutral, recipe.pairs)
    detailed = replace(prober, carriers=pinned)
    progress.stage("generate", plan.passes["generate"])
    barred = {lead.candidate.text for lead in (*text_leads, *noise_leads) if lead.strong}
    confirmations = [*named, *generate_tier(detailed, recipe, leads, scored, vocabulary.plain_words, barred)]
    progress.done(f"{sum(c.works for c in confirmations)} of {len(confirmations)} leads confirmed")
    found = tuple(confirmations)
    unsampled = _unsampled((*text_leads, *noise_leads), found) + undrawn
    return Scanned(plan, vocabulary, null, phrases, scored, leads, found, attention, unrecorded, unsampled), prober


def _unsampled(leads: Sequence[Lead], done: Sequence[Confirmation]) -> int:
    """Strong leads of which no pictures were made; a text in two slots is one."""
    strong = {(lead.candidate.text, lead.candidate.replaces) for lead in leads if lead.strong}
    return len(strong - {(c.lead.candidate.text, c.lead.candidate.replaces) for c in done})


def collect(
    model: DiffusionModel,
    vocabulary: Vocabulary,
    rules: Sequence[Rule],
    carriers: Sequence[str],
    options: ScanOptions,
) -> dict[Slot, Sequence[Candidate]]:
    """Candidates by slot, each with token ids of its own."""
    recipe = RECIPES[options.budget]
    in_place = [s for s in SLOTS if s not in recipe.slots]
    pool = rule_candidates(rules, recipe.depth, (*recipe.slots, *in_place))
    pool += vocabulary_candidates(vocabulary, recipe.slots)
    return {
        slot: distinct(model, [c for c in pool if c.slot is slot], carriers)
        for slot in SLOTS
        if slot is not Slot.PHRASE
    }


def rank(text: Sequence[Lead], noise: Sequence[Lead], most: int) -> tuple[Lead, ...]:
    """Leads in the order in which they are worth a full sampling; a quarter of the places at most for the text tier."""
    strong = text[: max(1, most // 4)]
    return (*strong, *noise[: most - len(strong)])


def _passes_a_second(model: DiffusionModel, seed: int) -> float:
    """Measured on one batch, so that the plan can say how long it will take."""
    hidden = model.encode(model.token_ids([""] * TIMED)).hidden
    noise = noise_like(model, TIMED, seed)
    started = time.perf_counter()
    with torch.no_grad():
        model.predict_noise(noise, high_noise(model), hidden)
    return TIMED / max(time.perf_counter() - started, 1e-6)


def _texts_a_second(model: DiffusionModel) -> float:
    ids = model.token_ids([""] * TIMED)
    model.encode(ids[:1])
    started = time.perf_counter()
    model.encode(ids)
    return TIMED / max(time.perf_counter() - started, 1e-6)


def _announce(plan: Plan, model: DiffusionModel, seconds: float) -> str:
    count, total = sum(len(c) for c in plan.candidates.values()), sum(plan.totals.values())
    kind = f"{model.device.type}, {str(model.dtype).removeprefix('torch.')}"
    return f"{count:,} of {total:,} candidates · {plan.unet_passes:,} UNet passes · about {seconds:.0f} s on {kind}"


def _too_little_time(plan: Plan, options: ScanOptions, seconds: float) -> TooLittleTime:
    return TooLittleTime(
        f"No {options.budget} scan fits into --max-time: the smallest takes {plan.unet_passes:,} UNet passes, about "
        f"{math.ceil(seconds):,} s on this machine.",
        hint="Allow more time" + ("." if options.budget is Budget.QUICK else ", or take a smaller --budget."),
    )


def _weights_line(null: NullDirections) -> str:
    if null.why_not:
        return f"no search for hidden directions: {null.why_not}"
    if len(null.basis):
        return f"{len(null.basis)} directions hidden from every cross-attention layer"
    return "no direction hidden from every cross-attention layer"


def _not_scanned(
    checkpoint: Checkpoint, options: ScanOptions, files: list[Finding], skipped: list[Skipped], seconds: float
) -> ScanResult:
    grave = any(f.severity.rank >= Severity.HIGH.rank for f in files)
    return ScanResult(
        tool_version=__version__,
        verdict=Verdict.SUSPICIOUS if grave else Verdict.INCONCLUSIVE,
        model=_model_info(checkpoint),
        findings=tuple(sorted(files, key=lambda f: -f.severity.rank)),
        coverage=nothing_covered(checkpoint, options, skipped, seconds),
    )


def unscannable(path: Path, options: ScanOptions, error: SauScanError) -> ScanResult:
    """The result of a scan that ``error`` ended: what is known by then, if only that nothing is."""
    if isinstance(error.partial, ScanResult):
        return error.partial
    reason = Skipped(what="model", reason=f"{error} {error.hint}", planned=True)
    return ScanResult(
        tool_version=__version__,
        verdict=Verdict.INCONCLUSIVE,
        model=ModelInfo(path=str(path), family="unknown"),
        findings=(),
        coverage=nothing_covered(None, options, [reason], 0.0),
    )


def _model_info(checkpoint: Checkpoint) -> ModelInfo:
    try:
        family = identify(checkpoint).title
    except CheckpointError:
        family = "unknown"
    return ModelInfo(path=str(checkpoint.root), family=family, files=checkpoint.records)
