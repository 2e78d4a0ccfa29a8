"""When a sample counts as found, and when a finding is a false alarm."""

from __future__ import annotations

from collections.abc import Sequence

from sau_scan.findings import Finding, Severity, Skipped
from tests.corpus.sample import Sample

ALARM = Severity.MEDIUM
"""What nobody should be told of a benign file: this or worse. That a file is a pickle is worth a remark."""


def worst(results: Sequence[Finding | Skipped]) -> int:
    """The rank of the most severe finding; -1: none."""
    return max((result.severity.rank for result in results if isinstance(result, Finding)), default=-1)


def right(sample: Sample, results: Sequence[Finding | Skipped]) -> bool:
    """A hostile sample is found as badly as it is, a benign one raises no alarm."""
    if sample.least is None:
        return worst(results) < ALARM.rank
    skipped = sample.damaged and any(isinstance(result, Skipped) for result in results)
    return skipped or worst(results) >= sample.least.rank
