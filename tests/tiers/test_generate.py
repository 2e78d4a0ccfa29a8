"""Leads of one place share controls of that place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.detectors.generation import PictureScore
from sau_scan.findings import Component, Slot
from sau_scan.options import Budget
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.plan import RECIPES
from sau_scan.probes.runner import Prober
from sau_scan.tiers.generate import FEWEST, _concluded, generate_tier
from sau_scan.tiers.leads import Lead, Scored

RECIPE = RECIPES[Budget.QUICK]


@pytest.fixture
def prober(tiny_checkpoint: Path) -> Prober:
    carriers = ("red cat photo", "blue dog house", "the house of the star", "red star and photo")
    return Prober(load_model(open_checkpoint(tiny_checkpoint)), carriers, ("of", "and"))


def lead(candidate: Candidate, score: float = 9.0) -> Lead:
    return Lead(candidate, "unexplained-effect", Component.UNET, score, 1e-4, 0.1)


def test_a_letter_with_few_look_alikes_has_ordinary_letters_as_controls(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Candidate]] = []
    draw = Prober.generate

    def generate(self: Prober, items: list[Candidate], *how: int, **more: float):  # type: ignore[no-untyped-def]
        seen.append(list(items))
        return draw(self, items, *how, steps=1, guidance=1.0)

    monkeypatch.setattr(Prober, "generate", generate)
    items = tuple(Candidate(ch, Slot.REPLACE, letter) for letter in "oe" for ch in "\u043e\u03bf")
    scored = {Slot.REPLACE: Scored(items, prober.text(items, 2))}
    done = generate_tier(prober, RECIPE, [lead(items[0])], scored)
    assert [c.lead.candidate for c in done] == [items[0]]
    controls = seen[0]
    assert len(controls) >= FEWEST
    assert {c.replaces for c in controls} == {"o"}
    assert items[0] not in controls


def test_what_stands_out_anywhere_is_no_control(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triggers that are not sampled, for want of places, would hide those that are."""
    seen: list[Candidate] = []
    draw = Prober.generate

    def generate(self: Prober, items: list[Candidate], *how: int, **more: float):  # type: ignore[no-untyped-def]
        seen.extend(items)
        return draw(self, items, *how, steps=1, guidance=1.0)

    monkeypatch.setattr(Prober, "generate", generate)
    items = tuple(Candidate(text, Slot.PREFIX) for text in "abcdefghijklmnop")
    scored = {Slot.PREFIX: Scored(items, prober.text(items, 2))}
    generate_tier(prober, RECIPE, [lead(items[0])], scored, barred={"b", "c", "d"})
    assert {c.text for c in seen} <= {"a", *"efghijklmnop"}
    assert len(seen) > FEWEST


def test_a_lead_without_a_place_or_without_controls_is_not_confirmed(prober: Prober) -> None:
    nowhere, alone = Candidate("!", Slot.REPLACE, "\u00df"), Candidate("x", Slot.SUFFIX)
    scored = {
        Slot.REPLACE: Scored((nowhere,), prober.text([Candidate("!", Slot.REPLACE, "o")], 2)),
        Slot.SUFFIX: Scored((alone,), prober.text([alone], 2)),
    }
    assert generate_tier(prober, RECIPE, [lead(nowhere), lead(alone)], scored) == []


def test_leads_stay_within_the_controls_that_are_planned(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = Prober.generate

    def generate(self: Prober, items: list[Candidate], *how: int, **more: float):  # type: ignore[no-untyped-def]
        drawn.append(len(items))
        return draw(self, items, *how, steps=1, guidance=1.0)

    monkeypatch.setattr(Prober, "generate", generate)
    letters = "oeatrsu"
    items = tuple(Candidate(ch, Slot.REPLACE, letter) for letter in letters for ch in "\u0101\u0113")
    scored = {Slot.REPLACE: Scored(items, prober.text(items, 2))}
    done = generate_tier(prober, RECIPE, [lead(c) for c in items], scored)
    assert 0 < len(done) <= RECIPE.generated
    assert sum(drawn) <= RECIPE.controls + RECIPE.generated
    assert np.isfinite([c.score.change for c in done]).all()


@pytest.mark.parametrize(
    ("strong", "change", "p_value", "shown", "works"),
    [
        (True, 4.0, 1e-3, 0.8, True),
        (True, 2.5, 1e-3, 0.8, False),
        (True, 4.0, 0.06, 0.8, False),
        (True, 4.0, 1e-3, 0.2, False),
        (False, 4.0, 1e-3, 0.8, False),
    ],
)
def test_a_change_is_strong_beyond_the_margin_improbable_and_shown(
    strong: bool, change: float, p_value: float, shown: float, works: bool
) -> None:
    """Twice the median is the strongest control, by the margin exceeded from three times on."""
    line = 4.0 if strong else 6.0
    lead = Lead(Candidate("x", Slot.PREFIX), "unexplained-effect", Component.UNET, 5.0, 0.5, line=line)
    flat = torch.ones(2, 2) / 4
    score = PictureScore(change, 2.0, p_value, shown, (0.0, 0.1), 1.0, 1.0, flat, flat[None])
    assert _concluded(lead, score).works is works
