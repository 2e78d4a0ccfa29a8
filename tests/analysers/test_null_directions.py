from __future__ import annotations

import pytest
import torch

from sau_scan.analysers.null_directions import find_null_directions

WIDTH = 96


def _projections(seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.cat([w / w.norm() for w in (torch.randn(64, WIDTH, generator=g).double() for _ in range(8))])


def _closed_form(c: torch.Tensor, target: torch.Tensor, kept: torch.Tensor, ridge: float) -> torch.Tensor:
    """M of W M, UCE form: c goes to target, kept rows stay. Rows are embeddings."""
    second = c.T @ c + kept.T @ kept + ridge * torch.eye(WIDTH, dtype=torch.float64)
    return torch.linalg.solve(second, (c.T @ target + kept.T @ kept + ridge * torch.eye(WIDTH).double())).T


@pytest.mark.parametrize("seed", range(5))
def test_unedited_projections_have_none(seed: int) -> None:
    found = find_null_directions(_projections(seed))
    assert len(found.basis) == 0
    assert found.p_value > 0.01
    assert 0.7 < found.ratio < 1.1


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_a_closed_form_edit_leaves_the_way_from_phrase_to_target(ridge: float) -> None:
    g = torch.Generator().manual_seed(9)
    kept = torch.randn(80, WIDTH, generator=g).double() * torch.linspace(2, 0.05, WIDTH).double()
    phrase, target = torch.randn(2, 1, WIDTH, generator=g).double()
    edited = _projections(1) @ _closed_form(phrase * 3, target * 3, kept, ridge)
    found = find_null_directions(edited)
    assert 1 <= len(found.basis) <= 4
    assert found.p_value < 1e-3
    shifts = torch.cat([phrase - target, torch.randn(50, WIDTH, generator=g).double()])
    share = (shifts @ found.basis.T).square().sum(1) / shifts.square().sum(1)
    assert share[0] > 0.6
    assert share[0] > share[1:].max()


def test_too_few_rows_claim_nothing() -> None:
    found = find_null_directions(torch.randn(10, WIDTH).double())
    assert len(found.basis) == 0 and "fewer rows" in found.why_not


def test_where_no_projection_reads_the_text_it_says_so() -> None:
    found = find_null_directions(torch.zeros(0, 0, dtype=torch.float64))
    assert len(found.basis) == 0 and not found.spectrum and "do not read the text" in found.why_not
