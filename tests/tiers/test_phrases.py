"""Text passes lead to phrases of words that keys and values hardly tell apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sau_scan.analysers.null_directions import NullDirections
from sau_scan.analysers.phrases import Collapse, Pair
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.options import Budget
from sau_scan.probes.candidates import Vocabulary, read_vocabulary
from sau_scan.probes.carriers import Words
from sau_scan.probes.plan import RECIPES
from sau_scan.probes.runner import Prober
from sau_scan.tiers import phrases
from sau_scan.tiers.phrases import (
    PhraseLead,
    PhraseTier,
    _without_edited,
    phrase_tier,
)

PAIR = Pair("dog", "star", -9.0)


EDITED = Pair("halo", "ribbon", -20.0, -4.0)
ECHO = PhraseLead("north", Pair("halo", "west", -6.0), 20.0, 1e-9)
FOREIGN = PhraseLead("blue", PAIR, 7.0, 1e-3)


@pytest.mark.parametrize(
    ("p_value", "pair", "left"),
    [
        (0.4, EDITED, {"blue"}),  # whatever the modifier
        (0.01, EDITED, {"blue", "north"}),  # after this modifier in particular: a phrase
        (0.4, replace(EDITED, score=-5.0), {"blue", "north"}),  # much alike, as some words are
    ],
)
def test_a_word_edited_by_itself_leads_to_no_phrase(p_value: float, pair: Pair, left: set[str]) -> None:
    least = PhraseLead("any", pair, 3.0, p_value)
    assert {lead.modifier for lead in _without_edited((ECHO, FOREIGN, least), pair)} == left | {"any"}


@pytest.mark.parametrize(
    ("collapse", "strongest", "soot", "order"),
    [
        ("oot", "soot", 0.1, ["soot", "oot"]),
        ("soot", "oot", 0.3, ["soot", "oot"]),
        ("red", "soot", 0.1, ["red", "soot"]),
        ("oot", "oot", 0.2, ["soot", "oot"]),  # the word acts, too
        ("oot", "oot", 0.9, ["oot"]),
    ],
)
def test_of_two_modifiers_the_word_of_content_comes_first_but_a_piece_after_its_word(
    demo: DiffusionModel, monkeypatch: pytest.MonkeyPatch, collapse: str, strongest: str, soot: float, order: list[str]
) -> None:
    words = {word: i for i, word in enumerate(("soot", "oot", "red", *(f"w{chr(97 + i)}x" for i in range(26))))}

    def told(_: object, __: object, ___: object, pool: list[str], *____: object) -> np.ndarray:
        known = {collapse: 0.3} | {strongest: 0.1} | {"soot": soot}
        return np.array([known.get(m, 0.9 + 0.001 * len(m)) for m in pool])

    monkeypatch.setattr(phrases, "told_apart", told)
    prober = Prober(demo, ("a",), ("x",), 0)
    found = phrases._leads(
        prober,
        torch.eye(2),
        Vocabulary(words, 0),
        Words(tuple(words), ()),
        Collapse(collapse, PAIR, -9.0),
        lambda _: None,
    )
    assert [lead.modifier for lead in found] == order


def test_without_an_edit_nothing_is_searched(demo: DiffusionModel) -> None:
    none = NullDirections(torch.zeros(0, 128), (1.0,), 1.0, 1.0)
    prober = Prober(demo, ("a",), ("x",), 0)
    recipe = RECIPES[Budget.QUICK]
    assert phrase_tier(prober, recipe, none, read_vocabulary(demo), Words((), ())) == PhraseTier((), None, 0)
    assert prober.counter.text == 0
