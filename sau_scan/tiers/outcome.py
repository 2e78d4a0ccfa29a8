"""What all tiers of one scan found, before it is put into words."""

from __future__ import annotations

from dataclasses import dataclass

from sau_scan.analysers.null_directions import NullDirections
from sau_scan.findings import Evidence, Skipped, Slot
from sau_scan.probes.candidates import Candidate, Vocabulary
from sau_scan.probes.planning import Plan
from sau_scan.tiers.generate import Confirmation
from sau_scan.tiers.leads import Lead, Scored
from sau_scan.tiers.phrases import PhraseTier


@dataclass(frozen=True)
class Scanned:
    """Everything the tiers found, before it is put into words."""

    plan: Plan
    vocabulary: Vocabulary
    null: NullDirections
    phrases: PhraseTier
    scored: dict[Slot, Scored]
    leads: tuple[Lead, ...]
    confirmations: tuple[Confirmation, ...]
    attention: dict[Candidate, tuple[Evidence, ...]]
    unrecorded: tuple[Skipped, ...]
    unsampled: int = 0  # strong leads of which no pictures were made
