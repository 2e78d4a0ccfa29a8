"""Where a LoRA acts, and on which texts."""

from __future__ import annotations

import pytest
import torch

from sau_scan.analysers.adapters import is_text_projection, module_changes, rank_texts, response_changes

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


def test_where_a_change_lies() -> None:
    place, other, same = (("unet", f"x{i}.attn2.to_k.weight") for i in range(3))
    before = {place: WEIGHTS[0], other: torch.randn(4, 4, 3, 3, generator=GENERATOR), same: WEIGHTS[1]}
    after = {
        place: WEIGHTS[0] + torch.outer(torch.ones(8), torch.ones(24)),
        other: before[other] * 1.01,
        same: WEIGHTS[1],
    }
    first, second = module_changes(before, after)
    assert (first.component, first.parameter) == place and first.share + second.share == pytest.approx(1)
    assert first.rank == pytest.approx(1) and second.rank > 1.5
    assert second.relative == pytest.approx(0.01, rel=1e-3)
    assert is_text_projection(place) and not is_text_projection(("unet", "x.attn1.to_k.weight"))
    assert module_changes(before, before) == []
