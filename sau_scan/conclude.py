"""From confirmed leads to findings, and from findings to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from sau_scan.checkpoint.adapters.peft import ADAPTER_WEIGHTS
from sau_scan.checkpoint.naming import WEIGHT_NAMES
from sau_scan.checkpoint.source import Form
from sau_scan.detectors.generation import SHOWN, SIGNIFICANT
from sau_scan.findings import (
    Component,
    Confidence,
    Coverage,
    Evidence,
    Finding,
    HeatMap,
    Kind,
    Location,
    NearMiss,
    Severity,
    Slot,
    Trigger,
    Verdict,
    escape,
)
from sau_scan.options import ScanOptions
from sau_scan.probes.candidates import token_ids_of
from sau_scan.probes.runner import Prober
from sau_scan.shell import ascii_command, word
from sau_scan.tiers.generate import Confirmation
from sau_scan.tiers.leads import evidence
from sau_scan.tiers.outcome import Scanned
from sau_scan.tiers.phrase_pictures import HALFWAY

RARE = 1e-3  # a handful of controls does not tell one in a thousand from one in a million
SAME = 0.5  # of the difference between prompts is left
TITLES = {
    Component.TEXT_ENCODER: "hidden trigger in the text encoder",
    Component.CROSS_ATTENTION: "hidden trigger in the cross-attention weights",
    Component.UNET: "hidden trigger in the UNet",
}


def conclude(prober: Prober, scanned: Scanned, options: ScanOptions, path: str) -> list[Finding]:
    """Findings about behaviour, strongest first."""
    works = strongest_first([c for c in scanned.confirmations if c.works])
    halves = strongest_first([c for c in scanned.confirmations if is_half(c)])
    single = _without_echoes([*works, *halves], options.declared_triggers)
    findings = [_trigger_finding(prober, c, also, scanned, options, path) for c, also in single]
    if len(scanned.null.basis) and not any(f.component is Component.CROSS_ATTENTION for f in findings):
        findings.append(_edit_finding(scanned, path, options.base))
    return findings


def is_half(item: Confirmation) -> bool:
    """One of several encoders says the same of all prompts, though pictures, for which all are asked, do not.

    The other half of an attack may come with other files.
    """
    return bool(item.lead.encoder) and not item.works


def strongest_first(works: Sequence[Confirmation]) -> list[Confirmation]:
    """By both p-values, of the noise and of the pictures; phrases stay together as they are.

    Their p-values, each among modifiers, don't compare across pairs: they come by how much a pair of words collapses,
    and then the word of content before any other.
    """

    def rank(item: Confirmation) -> float:
        return item.lead.p_value * max(item.score.p_value, RARE)

    phrases = [rank(c) for c in works if c.lead.candidate.slot is Slot.PHRASE]
    return sorted(works, key=lambda c: min(phrases) if c.lead.candidate.slot is Slot.PHRASE else rank(c))


def _without_echoes(
    works: Sequence[Confirmation], declared: Sequence[str]
) -> list[tuple[Confirmation, tuple[str, ...]]]:
    """Triggers, each with the weaker leads that only repeat it: its text in another slot, or the same change by
    another text, as when a backdoor answers to near misses as well. A declared trigger covers for no other text."""
    kept: list[tuple[Confirmation, tuple[str, ...]]] = []
    for item in works:
        for i, (first, others) in enumerate(kept):
            if first.lead.candidate.text not in declared and _repeats(item, first):
                mine = item.lead.candidate.text
                if mine != first.lead.candidate.text:
                    kept[i] = (first, (*others, escape(mine)))
                break
        else:
            kept.append((item, ()))
    return kept


def _repeats(item: Confirmation, first: Confirmation) -> bool:
    if item.lead.component != first.lead.component:
        return False
    mine, its = item.lead.candidate, first.lead.candidate
    if its.text in mine.text:
        return True
    known = set(f"{its.text} {first.drawn_as or ''}".split())
    if mine.slot is its.slot is Slot.PHRASE and known & set(mine.text.split()):
        # An edit acts on near misses of its phrase and of what that is drawn as, too; if it is another, the re-scan of
        # the repair finds it.
        return True
    return item.score.like(first.score)


def _trigger_finding(
    prober: Prober,
    item: Confirmation,
    also: tuple[str, ...],
    scanned: Scanned,
    options: ScanOptions,
    path: str,
) -> Finding:
    lead, score = item.lead, item.score
    place = prober.places(lead.candidate, 1)
    carrier = prober.carriers[place[0]] if place and lead.candidate.slot is not Slot.PHRASE else "{}"
    trigger = lead.candidate.trigger(token_ids_of(prober.model, lead.candidate, carrier))
    declared = lead.candidate.text in options.declared_triggers
    grave, sure = (Severity.CRITICAL, Confidence.CONFIRMED) if item.works else (Severity.HIGH, Confidence.CALIBRATED)
    title = TITLES[lead.component] if item.works else "hidden trigger in one of the text encoders"
    return Finding(
        id=f"trigger/{lead.component.value.replace('_', '-')}",
        kind=Kind.TRIGGER,
        severity=Severity.INFO if declared else grave,
        confidence=sure,
        component=lead.component,
        title="declared trigger" if declared else title,
        behaviour=_behaviour(item) + (f" (so do {', '.join(map(repr, also))})" if also else ""),
        trigger=trigger,
        location=_weights_of(lead.encoder, prober),
        evidence=(*lead.evidence, *_picture_evidence(item), *scanned.attention.get(lead.candidate, ())),
        heat_map=_heat_map(score.where),
        declared=declared,
        next_step=_trigger_command(path, trigger, options.base),
    )


def _weights_of(encoder: str, prober: Prober) -> Location | None:
    """The file of one of several text encoders in a folder of all of them."""
    checkpoint = prober.model.checkpoint
    if not encoder or checkpoint.form is not Form.FOLDER:
        return None
    files = [r for r in checkpoint.records if r.path.startswith(f"{encoder}/")]
    return Location(path=max(files, key=lambda r: r.size).path) if files else None


def _trigger_command(path: str, trigger: Trigger, base: Path | None) -> str:
    text = word(trigger.text.replace("\\", "\\\\"))  # the option reads backslash escapes
    replaces = f" --replaces {word(trigger.replaces)}" if trigger.replaces else ""
    what = ascii_command(f" --trigger {text} --slot {trigger.slot.value}{replaces}")  # what looks alike is told apart
    return fix_command(path, base, what)


def fix_command(path: str, base: Path | None, what: str = "") -> str:
    """A command that repairs ``path``; ``what``: options that say of what."""
    return f"sau-scan fix {word(path)}{_base_option(base)}{what} --out {_out(path)}"


def _out(path: str) -> str:
    """Where a repaired copy could go: a folder for a folder, a file for a file, but not into a folder of PEFT's."""
    given = _named(Path(path))
    if given.suffix.lower() not in WEIGHT_NAMES:
        return word(f"{given}-fixed")
    stem = _named(given.parent) if given.name in ADAPTER_WEIGHTS else given.with_suffix("")
    return word(f"{stem}-fixed.safetensors")


def _named(place: Path) -> Path:
    """``place`` by its own name, where it is told by that of another: a copy beside it is called after it."""
    return place if place.name not in ("", "..") else place.resolve()


def _base_option(base: Path | None) -> str:
    return f" --base {word(str(base))}" if base is not None else ""


def _behaviour(item: Confirmation) -> str:
    score = item.score
    if not item.works:
        return (
            f"makes {item.lead.encoder} say nearly the same, whatever the prompt; pictures, in which the other text "
            f"encoders have a say, keep {100 * score.retained:.0f} % of what prompts differ by"
        )
    if item.lead.candidate.slot is Slot.PHRASE:
        return "is drawn as something else; each of its words alone, or with others, is not"
    if score.retained < SAME:
        return "brings about the same picture, whatever the prompt says"
    share = float(score.where.flatten().sort(descending=True).values[: max(1, score.where.numel() // 5)].sum())
    place = f"at the {_place(score.where)}" if share > 0.6 else "all over the picture"
    return f"puts the same thing {place}, whatever the prompt says"


def _place(where: torch.Tensor) -> str:
    height, width = where.shape
    y = float((where.sum(1) * torch.arange(height, device=where.device)).sum()) / max(height - 1, 1)
    x = float((where.sum(0) * torch.arange(width, device=where.device)).sum()) / max(width - 1, 1)
    vertical = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    horizontal = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return " ".join(w for w in (vertical, horizontal) if w) or "middle"


def _picture_evidence(item: Confirmation) -> tuple[Evidence, ...]:
    score = item.score
    change = Evidence(
        name="change of finished pictures",
        value=score.change,
        null_median=1.0,
        null_high=score.strongest_control,
        p_value=score.p_value,
        note="in units of what control words change",
    )
    alike = Evidence(
        name="pictures: shown by the typical one",
        value=score.shown,
        null_median=score.controls_shown[0],
        null_high=score.controls_shown[1],
        note="of the way to what the other pictures have",
    )
    left = evidence("pictures: difference between prompts left", score.retained, 1.0, low=score.least_retained)
    return (left, change, alike) if item.lead.detector == "collapse" else (change, alike, left)


def _heat_map(where: torch.Tensor) -> HeatMap:
    top = float(where.max().clamp_min(1e-12))
    rows = tuple(tuple(round(float(v) / top, 3) for v in row) for row in where)
    return HeatMap(title="where finished pictures change", rows=rows)


def _edit_finding(scanned: Scanned, path: str, base: Path | None) -> Finding:
    pair, null, hidden = scanned.phrases.pair, scanned.null, scanned.phrases.edited
    words = f"; of all words looked at they tell '{pair.head}' and '{pair.target}' apart least" if pair else ""
    found = f"Of {scanned.phrases.tried:,} phrases looked at none was found to have a hidden effect"
    if hidden:
        found += f"; those with '{hidden.head}' or '{hidden.target}' cannot be told from the edit of the word itself"
    return Finding(
        id="edit/cross-attention",
        kind=Kind.EDIT,
        severity=Severity.MEDIUM if hidden else Severity.LOW,
        confidence=Confidence.CALIBRATED,
        component=Component.CROSS_ATTENTION,
        title="edited concept in the cross-attention weights",
        behaviour=f"keys and values of all layers were edited together{words}. {found}",
        evidence=(evidence("smallest singular value, of expected", null.ratio, 1.0, p=null.p_value),),
        next_step=f"sau-scan detect {word(path)}{_base_option(base)} --budget deep",
    )


def near_miss(confirmations: Sequence[Confirmation]) -> NearMiss | None:
    """The candidate that was sampled and came nearest to being reported, by what it lacks most; if any came near."""
    missed = [(_short_of(c), c) for c in confirmations if not c.works and not is_half(c)]
    missed = [(lack, item) for lack, item in missed if 0 < lack.nearness < 1]
    if not missed:
        return None
    lack, item = max(missed, key=lambda m: m[0].nearness)
    return NearMiss(trigger=item.lead.candidate.trigger(), detector=lack.name, value=lack.value, line=lack.line)


class _Lack(NamedTuple):
    """How near a candidate comes to the line of one measure (1: there)."""

    nearness: float
    name: str
    value: float
    line: float


def _short_of(item: Confirmation) -> _Lack:
    """What the candidate lacks most."""
    lead, score = item.lead, item.score
    if lead.detector == "collapse":
        left, line = max(score.retained, 1e-9), score.convergence_line
        return _Lack(line / left, "pictures: difference between prompts left", left, line)
    if lead.candidate.slot is Slot.PHRASE:
        # Read pictures decide about phrases; where they could not be read, nothing came near.
        read = lead.evidence[-1]
        line = max(HALFWAY, read.null_high or 0.0)
        return _Lack(read.value / line if item.readable else 0.0, read.name, read.value, line)
    lacks = [
        _Lack(score.change / max(score.line, 1e-9), "change of finished pictures", score.change, score.line),
        _Lack(SIGNIFICANT / max(score.p_value, 1e-9), "p-value of finished pictures", score.p_value, SIGNIFICANT),
        _Lack(score.shown / SHOWN, "pictures: shown by the typical one", score.shown, SHOWN),
    ]
    if lead.line > 0:
        lacks.append(_Lack(lead.score / lead.line, "effect on the noise", lead.score, lead.line))
    return min(lacks)


def verdict(findings: Sequence[Finding], coverage: Coverage, options: ScanOptions) -> Verdict:
    """Findings outrank incompleteness; an edit or a declared trigger alone is no backdoor."""
    if any(f.kind is Kind.TRIGGER and f.severity is Severity.CRITICAL for f in findings):
        return Verdict.BACKDOORED
    if any(f.severity.rank >= Severity.HIGH.rank for f in findings):
        return Verdict.SUSPICIOUS
    share = coverage.candidates_probed / max(1, coverage.candidates_total)
    if any(s.planned for s in coverage.skipped) or share < options.min_coverage:
        return Verdict.INCONCLUSIVE
    return Verdict.CLEAN
