"""An edit that makes two words look alike to keys and values gives their names away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sau_scan.analysers.null_directions import stacked_projections
from sau_scan.analysers.phrases import Pair, end_states, least_apart, told_apart
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.source import open_checkpoint

WORDS = ("cat", "dog", "red", "blue", "house", "photo", "star")
BEFORE, FRAMES = ("of", "and", "the"), ("{}", "red {}")


def count(texts: int) -> None:
    assert texts > 0


def model_of(path: Path) -> DiffusionModel:
    return load_model(open_checkpoint(path))


def blind_to(model: DiffusionModel, first: str, second: str) -> torch.Tensor:
    """Projections that ignore what the two texts differ by."""
    a, b = (end_states(model, [f.format(t) for f in FRAMES], count).double().flatten(0, 1) for t in (first, second))
    basis = torch.linalg.svd(a - b, full_matrices=False)[2]
    projections = stacked_projections(model)
    return projections - projections @ basis.T @ basis


def test_the_pair_that_was_edited_is_told_apart_least(tiny_checkpoint: Path) -> None:
    model = model_of(tiny_checkpoint)
    projections = stacked_projections(model)
    for before in BEFORE:
        projections = (
            projections
            @ torch.linalg.pinv(stacked_projections(model))
            @ blind_to(model, f"{before} dog", f"{before} star")
        )
    found = least_apart(model, projections, WORDS, BEFORE, FRAMES, count)
    assert found is not None
    assert {found.head, found.target} == {"dog", "star"}
    assert found.score < -3


def test_after_the_edited_phrase_s_modifier_the_pair_collapses(tiny_checkpoint: Path) -> None:
    model = model_of(tiny_checkpoint)
    projections = blind_to(model, "blue dog", "blue star")
    modifiers = ("of", "and", "the", "house", "photo", "blue")
    ratios = told_apart(model, projections, Pair("dog", "star", 0.0), modifiers, FRAMES, count)
    assert modifiers[int(np.argmin(ratios))] == "blue"


def test_of_too_few_words_nothing_is_said(tiny_checkpoint: Path) -> None:
    model = model_of(tiny_checkpoint)
    assert least_apart(model, stacked_projections(model), ("cat", "dog"), BEFORE, FRAMES, count) is None
    assert least_apart(model, stacked_projections(model), WORDS, (), FRAMES, count) is None
