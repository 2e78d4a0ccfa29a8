"""What was looked at, what was not, and what that took: the lines under every text report."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from sau_scan.findings import Coverage, ModelInfo, shown
from sau_scan.reports.layout import field
from sau_scan.reports.words import cost_text, count, percent, safe

# Hashes of these are shown; those of small files are in the JSON report.
_WEIGHT_ENDINGS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")


def coverage_lines(coverage: Coverage) -> Iterator[RenderableType]:
    """Candidates, what was left out, detectors, settings, cost, versions."""
    yield field("coverage", _candidates(coverage))
    for skipped in coverage.skipped:
        label = "not done" if skipped.planned else "skipped"
        yield field(label, f"{shown(skipped.what)}: {safe(skipped.reason)}", style="magenta" if skipped.planned else "")
    if coverage.limits:
        yield field("", "not looked at: " + "; ".join(map(safe, coverage.limits)))
    yield from _detectors(coverage)
    yield field(
        "settings",
        f"seed {coverage.seed} · {safe(coverage.budget)} · {safe(coverage.device)}, {safe(coverage.dtype)}",
    )
    yield field("cost", cost_text(coverage.used, coverage.planned))
    if coverage.versions:
        names = " · ".join(f"{safe(name)} {safe(version)}" for name, version in sorted(coverage.versions.items()))
        yield field("versions", names)


def file_lines(model: ModelInfo) -> Iterator[RenderableType]:
    """The sha256 of each weight file: what this report is about."""
    weights = [(file.path, file) for file in model.files if file.path.endswith(_WEIGHT_ENDINGS)]
    if model.base is not None:
        base = [file for file in model.base.files if file.path.endswith(_WEIGHT_ENDINGS)]
        weights += [(f"{model.base.path}: {file.path}", file) for file in base]
    for index, (name, file) in enumerate(weights):
        yield field("sha256" if index == 0 else "", f"{shown(name)}\n{safe(file.sha256)}")


def _candidates(coverage: Coverage) -> str:
    if not coverage.candidates_total:
        return f"{count(coverage.files_read, 'file')} read; no candidates probed"
    share = percent(coverage.candidates_probed / coverage.candidates_total)
    text = (
        f"{count(coverage.files_read, 'file')} read; {coverage.candidates_probed:,} of "
        f"{count(coverage.candidates_total, 'candidate')} probed ({share})"
    )
    slots = ", ".join(f"{slot.slot} {slot.probed:,} of {slot.total:,}" for slot in coverage.slots)
    return text + (f"; {slots}" if slots else "")


def _detectors(coverage: Coverage) -> Iterator[RenderableType]:
    ran = [safe(run.id) for run in coverage.detectors if run.ran]
    if ran:
        yield field("detectors", f"{len(ran)} ran: " + ", ".join(ran))
    reasons: dict[str, list[str]] = {}
    for run in coverage.detectors:
        if not run.ran:
            reasons.setdefault(run.reason or "", []).append(safe(run.id))
    for reason, names in reasons.items():
        yield field("not run", f"{', '.join(names)}: {safe(reason)}")
