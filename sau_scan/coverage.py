"""What a scan looked at, and what it did not: a clean verdict is worth as much as this says."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from sau_scan import __version__
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.checkpoint.strays import strays
from sau_scan.findings import SHARE, Cost, Coverage, DetectorRun, Skipped, escape
from sau_scan.options import Budget, ScanOptions
from sau_scan.probes.runner import Prober
from sau_scan.registry import DETECTORS
from sau_scan.tiers.outcome import Scanned
from sau_scan.tiers.phrases import MODIFIERS

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors")


def coverage(
    checkpoint: Checkpoint,
    prober: Prober,
    scanned: Scanned,
    options: ScanOptions,
    skipped: list[Skipped],
    seconds: float,
) -> Coverage:
    """Coverage of a scan that went through all tiers."""
    slots = scanned.plan.coverage
    probed, total = sum(s.probed for s in slots), sum(s.total for s in slots)
    left = [*skipped, *strays(checkpoint, prober.model.disk.values()), *scanned.plan.skipped, *scanned.unrecorded]
    if prober.model.uneven is not None:
        left.append(prober.model.uneven)
    if probed < options.min_coverage * total:
        told = f"{100 * probed / total:.1f} % are in the plan, {100 * options.min_coverage:g} % were asked for"
        left.append(Skipped(what=SHARE, reason=f"{told}; a larger --budget probes more", planned=True))
    return Coverage(
        files_read=len(checkpoint.records),
        candidates_probed=probed,
        candidates_total=total,
        slots=slots,
        detectors=_detector_runs(scanned),
        skipped=tuple(left),
        limits=_limits(scanned, options),
        seed=options.seed,
        budget=options.budget,
        device=str(prober.model.device),
        dtype=str(prober.model.dtype).removeprefix("torch."),
        planned=Cost(text_passes=scanned.plan.text_passes, unet_passes=scanned.plan.unet_passes),
        used=Cost(text_passes=prober.counter.text, unet_passes=prober.counter.unet, seconds=round(seconds, 2)),
        versions=_versions(),
    )


def nothing_covered(files_read: int, options: ScanOptions, skipped: list[Skipped], seconds: float) -> Coverage:
    """Coverage of a scan that ended before the model was probed; the last of ``skipped`` says why."""
    reason = skipped[-1].reason
    ran = [files_read > 0 and d.needs == "files" for d in DETECTORS]
    runs = [
        DetectorRun(id=d.id, summary=d.summary, ran=r, reason="" if r else reason)
        for d, r in zip(DETECTORS, ran, strict=True)
    ]
    return Coverage(
        files_read=files_read,
        detectors=tuple(runs),
        skipped=tuple(skipped),
        seed=options.seed,
        budget=options.budget,
        used=Cost(seconds=seconds),
        versions=_versions(),
    )


def _limits(scanned: Scanned, options: ScanOptions) -> tuple[str, ...]:
    """What a clean verdict says nothing about."""
    found = [f"{scanned.vocabulary.untypable:,} tokens that no text alone yields"]
    if scanned.null.why_not:
        found.append(f"edits of keys and values in closed form, and pairs of words: {scanned.null.why_not}")
    elif not len(scanned.null.basis):
        found.append("pairs of words (the weights gave no lead to any)")
    else:
        words = round(scanned.phrases.tried**0.5)
        found.append(f"phrases that end in other words than the {words} most telling ones")
        found.append("pairs of words that rules name, where the weights give no lead to them")
        if len(scanned.vocabulary.plain_words) > MODIFIERS:
            found.append(f"phrases with a word beyond the first {MODIFIERS:,} of the vocabulary")
    if edited := scanned.phrases.edited:
        found.append(f'phrases with "{escape(edited.head)}" or "{escape(edited.target)}", edited by themselves')
    pieces = [f'"{escape(c.lead.candidate.text)}" ("{escape(c.means)}")' for c in scanned.confirmations if c.means]
    if pieces:
        found.append(f"pieces of words that do what the word does: {', '.join(pieces)}")
    if scanned.unsampled:
        found.append(f"finished pictures of {scanned.unsampled:,} further leads; a larger budget makes more")
    if scanned.plan.only_read:
        found.append(
            f"what {scanned.plan.only_read:,} candidates do in the UNet; they were tried in the text encoder only"
        )
    if options.budget is not Budget.DEEP:
        found.append("texts and slots of larger budgets")
    found += [
        "words of several tokens that no rule names" + _read_for(scanned),
        "phrases of three or more words",
        "triggers before or behind a prompt that shift its meaning in the text encoder instead of replacing it",
        "effects on pictures that are faint, or rarer than two in three",
        "triggers that are a meaning or a syntax, not a text; effects without any trigger",
    ]
    return tuple(found)


def _read_for(scanned: Scanned) -> str:
    """Which such words were looked at, of a LoRA."""
    own = {c.text for items in scanned.plan.candidates.values() for c in items if c.source == "adapter"}
    return f", but for the {len(own):,} of a dictionary that the LoRA changes most" if own else ""


def _detector_runs(scanned: Scanned) -> tuple[DetectorRun, ...]:
    """Which detectors looked; one that could not is told with the reason."""
    why = {}
    if scanned.null.why_not:
        why["null-direction"] = scanned.null.why_not
    if not scanned.plan.recipe.attended:
        why["attention"] = "the plan had no passes left for it"
    elif scanned.unrecorded and scanned.leads and not scanned.attention:
        why["attention"] = scanned.unrecorded[0].reason
    if not scanned.plan.recipe.generated:
        why["generation"] = "the plan had no passes left for it"
    return tuple(
        DetectorRun(id=d.id, summary=d.summary, ran=d.id not in why, reason=why.get(d.id, "")) for d in DETECTORS
    )


def _versions() -> dict[str, str]:
    found = {"sau-scan": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
