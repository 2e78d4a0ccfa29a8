"""A piece of a word that does what the word does is no trigger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.findings import Slot
from sau_scan.options import Budget
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.plan import RECIPES
from sau_scan.probes.runner import Prober
from sau_scan.recordings import PictureRecording
from sau_scan.tiers import generate, pieces
from tests.test_conclude import CHANGE, OTHER, confirmed


@pytest.fixture
def prober(tiny_checkpoint: Path) -> Prober:
    carriers = ("red cat photo", "blue dog house", "the house of the star", "red star and photo")
    return Prober(load_model(open_checkpoint(tiny_checkpoint)), carriers, ("of", "and"))


@pytest.mark.parametrize(
    "piece",
    [
        Candidate("o", Slot.SUFFIX),
        Candidate("\u200b", Slot.SUFFIX),
        Candidate("ta", Slot.REPLACE, "a"),
        Candidate("zz", Slot.SUFFIX),
    ],
)
def test_what_is_no_piece_of_a_word_has_no_whole(prober: Prober, piece: Candidate) -> None:
    assert pieces.whole_of(prober, piece, ["star", "house", "photo", "\u200b star"]) is None


def test_the_whole_is_the_word_that_means_most_nearly_the_same(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    directions = {"ta": (1.0, 0.1), "star": (1.0, 0.0), "stay": (0.0, 1.0)}
    monkeypatch.setattr(pieces, "_moved", lambda _, item, *__: torch.tensor(directions[item.text]))
    monkeypatch.setattr(pieces, "_contains", lambda *_: False)
    whole = pieces.whole_of(prober, Candidate("ta", Slot.SUFFIX), ["stay", "ta", "star", "house"])
    assert whole is not None
    assert (whole.text, whole.slot) == ("star", Slot.SUFFIX)


def test_a_word_that_has_the_piece_as_a_token_is_no_whole(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger acts in it, too."""
    tokens = {"ta": (7,), "star": (3, 7), "stay": (4,)}
    monkeypatch.setattr(pieces, "token_ids_of", lambda _, item, __: tokens[item.text])
    whole = pieces.whole_of(prober, Candidate("ta", Slot.SUFFIX), ["star", "stay"])
    assert whole is not None
    assert whole.text == "stay"


@pytest.mark.parametrize(
    ("drawn", "share", "detector", "works"),
    [
        (CHANGE, 1.0, "unexplained-effect", False),
        (OTHER, 1.0, "unexplained-effect", True),
        (CHANGE, 0.5, "unexplained-effect", True),  # the word hardly does it
        (CHANGE, 1.0, "collapse", True),  # no word makes all prompts one
    ],
)
def test_a_piece_that_does_what_its_word_does_is_no_finding(
    prober: Prober,
    monkeypatch: pytest.MonkeyPatch,
    drawn: torch.Tensor,
    share: float,
    detector: str,
    works: bool,
) -> None:
    whole = Candidate("star", Slot.SUFFIX)
    monkeypatch.setattr(generate, "whole_of", lambda *_: whole)
    monkeypatch.setattr(Prober, "generate", lambda *_, **__: PictureRecording(torch.zeros(1, 6, 4, 8, 8)))
    item = confirmed("ta", CHANGE)
    item = replace(item, lead=replace(item.lead, detector=detector))
    of_whole = replace(confirmed("star", drawn).score, change=share * item.score.change)
    monkeypatch.setattr(generate, "score_pictures", lambda *_: of_whole)
    pool = PictureRecording(torch.zeros(2, 6, 4, 8, 8))
    recipe = RECIPES[Budget.STANDARD]
    found = generate._without_pieces(prober, recipe, [(item, pool)] * (recipe.wholes + 1), ["star"])
    assert [c.works for c in found] == [works] * recipe.wholes + [True]
    assert found[0].means == (None if works else "star")
