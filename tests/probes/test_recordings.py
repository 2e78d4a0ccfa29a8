"""What is read off a recording."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.probes.runner import _reduce_noise
from sau_scan.recordings import PART, NoiseRecording


def recording(change: torch.Tensor) -> NoiseRecording:
    """Of one candidate whose noise prediction [C, h, w] changes by ``change`` in every carrier."""
    moved = change.expand(1, 4, *change.shape)
    return _reduce_noise(moved, torch.zeros(4, dtype=torch.long), 1)


def test_an_effect_that_is_everywhere_is_as_strong_at_its_strongest() -> None:
    found = recording(torch.full((4, 20, 20), 0.3))
    assert float(found.peak) == pytest.approx(float(found.effect)) == pytest.approx(0.3)


@given(st.integers(1, 20), st.floats(0.1, 10))
def test_a_patch_does_not_drown_in_the_rest(positions: int, size: float) -> None:
    """It is as strong as if it were everywhere, as far as it fills a twentieth of the picture."""
    change = torch.zeros(4, 20, 20)
    change.view(4, -1)[:, :positions] = size
    found = recording(change)
    assert float(found.effect) == pytest.approx(size * (positions / 400) ** 0.5, rel=1e-4)
    assert float(found.peak) == pytest.approx(size * (positions / (PART * 400)) ** 0.5, rel=1e-4)
