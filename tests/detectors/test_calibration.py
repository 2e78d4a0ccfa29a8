from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sau_scan.detectors.calibration import adjusted, robust_z, tail_p_values


def test_p_values_of_the_null_are_honest() -> None:
    rng = np.random.default_rng(0)
    small = np.mean([(tail_p_values(rng.normal(size=2000), rng.normal(size=512)) < 0.01).mean() for _ in range(20)])
    assert 0.004 < small < 0.02


def test_an_outlier_gets_a_small_p_value_and_pays_for_the_number_of_tries() -> None:
    scores = np.append(np.random.default_rng(1).normal(size=3000), 14.0)
    p = tail_p_values(scores)
    assert p[-1] < 1e-5
    assert adjusted(p)[-1] < 0.01
    assert adjusted(p)[:-1].min() > 0.05


def test_few_null_scores_never_claim_more_than_their_number() -> None:
    p = tail_p_values(np.array([1e6]), np.arange(10.0))
    assert p[0] == pytest.approx(1 / 11)


def test_a_trigger_is_kept_out_of_its_own_null() -> None:
    scores = np.append(np.random.default_rng(2).normal(size=400), [50.0, 52.0])
    assert tail_p_values(scores)[-2:].max() < 1e-3


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-10_000, 10_000), min_size=80, max_size=200, unique=True),
    st.sampled_from([0.25, 2.0, 64.0]),
    st.integers(-100, 100),
)
def test_p_values_fall_with_the_score_and_ignore_its_unit(values: list[int], scale: float, offset: int) -> None:
    scores = np.sort(np.array(values, dtype=float))
    p = tail_p_values(scores)
    assert np.all((p > 0) & (p <= 1))
    assert np.all(np.diff(p) <= 1e-9)
    np.testing.assert_allclose(tail_p_values(scores * scale + offset), p, rtol=1e-6)


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=50))
def test_robust_z_is_zero_at_the_median(values: list[float]) -> None:
    scores = np.array(values)
    assert robust_z(np.append(scores, np.median(scores)))[-1] == pytest.approx(0.0, abs=1e-6) or np.ptp(scores) == 0
