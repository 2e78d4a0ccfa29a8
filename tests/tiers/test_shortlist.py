"""What stands out goes to the UNet first, and what is left of the places is a sample."""

from __future__ import annotations

import torch

from sau_scan.findings import Component, Slot
from sau_scan.probes.candidates import Candidate
from sau_scan.recordings import TextRecording
from sau_scan.tiers.leads import Lead, Scored
from sau_scan.tiers.shortlist import shortlist

RULES, WORDS = 5, 195


def scored() -> Scored:
    items = [Candidate(f"r{i}", Slot.SUFFIX, source="rule") for i in range(RULES)]
    items += [Candidate(f"w{i}", Slot.SUFFIX) for i in range(WORDS)]
    retained = torch.linspace(1, 2, len(items))
    retained[-10:] = torch.linspace(0.5, 0.6, 10)
    shift = torch.arange(len(items), dtype=torch.float32)
    return Scored(tuple(items), TextRecording(shift, shift, retained[:, None]))


def lead(number: int) -> Lead:
    return Lead(Candidate(f"w{number}", Slot.SUFFIX), "collapse", Component.TEXT_ENCODER, 0.9, 1e-5)


def texts(count: int, *leads: int, seed: int = 0) -> set[str]:
    return {c.text for c in shortlist(scored(), count, [lead(n) for n in leads], seed).candidates}


def test_rules_leads_and_the_nearest_come_first() -> None:
    chosen = texts(27, 40, 90)
    assert len(chosen) == 27
    assert {f"r{i}" for i in range(RULES)} | {"w40", "w90"} <= chosen
    assert {f"w{WORDS - 10 + i}" for i in range(5)} <= chosen  # a quarter of the 20 places that are left


def test_the_rest_is_a_sample_that_depends_on_the_seed_alone() -> None:
    assert texts(60, seed=1) == texts(60, seed=1) != texts(60, seed=2)
    assert len({int(t[1:]) // 40 for t in texts(60) if t.startswith("w")}) == 5  # from all over the vocabulary


def test_with_fewer_places_than_rules_leads_are_first() -> None:
    assert {"w40", "w90"} <= texts(4, 40, 90)


def test_recordings_stay_with_their_candidates() -> None:
    whole, part = scored(), shortlist(scored(), 30, [lead(3)], 0)
    assert part.text.shift.tolist() == [float(whole.candidates.index(c)) for c in part.candidates]
    assert shortlist(whole, 999, [], 0) is whole


def test_what_is_nearest_to_a_collapse_in_one_encoder_counts() -> None:
    whole = scored()
    one = whole.text.retained.clone()
    one[RULES] = 0.1
    both = TextRecording(whole.text.shift, whole.text.each, torch.cat([whole.text.retained, one], dim=1))
    assert "w0" in {c.text for c in shortlist(Scored(whole.candidates, both), 9, [], 0).candidates}
