"""What the tiers hand on: leads with their evidence, and the scored candidates of a slot."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sau_scan.findings import Component, Evidence
from sau_scan.probes.candidates import Candidate
from sau_scan.recordings import TextRecording


@dataclass(frozen=True)
class Lead:
    """A candidate that stands out, with the detector that says so; ``shift`` is how far it moves the text output.

    ``line``: what the score of the best of as many harmless candidates comes to. ``encoder``: the one of
    several text encoders that it is about, if it is about one."""

    candidate: Candidate
    detector: str
    component: Component
    score: float
    p_value: float
    shift: float = 0.0
    evidence: tuple[Evidence, ...] = ()
    line: float = -math.inf
    encoder: str = ""

    @property
    def strong(self) -> bool:
        """Beyond chance; otherwise the lead is only worth a look."""
        return self.score > self.line


@dataclass(frozen=True)
class Scored:
    """One slot's candidates with their text recording."""

    candidates: tuple[Candidate, ...]
    text: TextRecording


def evidence(
    name: str,
    value: float,
    median: float | None = None,
    low: float | None = None,
    high: float | None = None,
    p: float | None = None,
) -> Evidence:
    plain = [None if v is None else float(v) for v in (median, low, high, p)]
    return Evidence(
        name=name, value=float(value), null_median=plain[0], null_low=plain[1], null_high=plain[2], p_value=plain[3]
    )
