"""Where a LoRA acts, and on which texts."""

from __future__ import annotations

import pytest
import torch

from sau_scan.analysers.adapters import is_text_projection, rank_texts, response_changes

GENERATOR = torch.Generator().manual_seed(0)
TEXTS = [f"word{i}" for i in range(400)]
STATES = torch.randn(400, 2, 24, generator=GENERATOR)
WEIGHTS = [torch.randn(rows, 24, generator=GENERATOR) for rows in (8, 16, 32)]


def test_the_ratio_is_what_it_is_said_to_be() -> None:
    moved = STATES + 0.1 * torch.randn(STATES.shape, generator=GENERATOR)
    new = [w + 0.05 * torch.randn(w.shape, generator=GENERATOR) for w in WEIGHTS]
    found = response_changes(STATES, moved, zip(WEIGHTS, new, strict=True))
    change = torch.cat([(moved @ n.T - STATES @ w.T) / w.norm() for w, n in zip(WEIGHTS, new, strict=True)], dim=2)
    plain = torch.cat([STATES @ w.T / w.norm() for w in WEIGHTS], dim=2)
    assert torch.allclose(found, change.norm(dim=2) / plain.norm(dim=2), rtol=1e-4)
    assert response_changes(STATES, STATES, zip(WEIGHTS, WEIGHTS, strict=True)).max() < 1e-6


@pytest.mark.parametrize("where", ["weights", "encoder"])
def test_a_text_that_was_trained_on_comes_first(where: str) -> None:
    direction = STATES[7, 1] / STATES[7, 1].norm()
    new, moved = WEIGHTS, STATES
    if where == "weights":
        new = [w + 0.3 * torch.outer(w.mean(1) + 1, direction) for w in WEIGHTS]
    else:
        moved = STATES.clone()
        moved[7] += 3
    (first, second, *_) = rank_texts(TEXTS, STATES, moved, zip(WEIGHTS, new, strict=True), most=5)
    assert first.text == "word7" and first.z > second.z and first.p_value < second.p_value
    assert first.ratio > 0


def test_which_parameters_make_keys_and_values_of_texts() -> None:
    assert is_text_projection(("unet", "x0.attn2.to_k.weight"))
    assert not is_text_projection(("unet", "x.attn1.to_k.weight"))
