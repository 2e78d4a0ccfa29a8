from __future__ import annotations

import numpy as np

from sau_scan.detectors.unexplained import excess


def _vocabulary(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    shift = rng.lognormal(0, 1, count)
    return shift**0.8 * rng.lognormal(0, 0.2, count), shift


def test_what_meaning_explains_is_no_excess_and_what_it_does_not_is() -> None:
    effect, shift = _vocabulary(np.random.default_rng(0), 1500)
    strong_word, trigger = int(shift.argmax()), int(np.argsort(shift)[100])
    effect[trigger] *= 8
    z = excess(effect, shift)
    assert int(z.argmax()) == trigger
    assert z[trigger] > 6
    assert z[strong_word] < 4


def test_excess_does_not_depend_on_units() -> None:
    effect, shift = _vocabulary(np.random.default_rng(1), 400)
    np.testing.assert_allclose(excess(effect, shift), excess(effect * 37, shift * 0.01), atol=1e-6)


def test_candidates_outside_the_null_do_not_move_the_curve() -> None:
    effect, shift = _vocabulary(np.random.default_rng(2), 400)
    more_effect, more_shift = np.append(effect, 50.0), np.append(shift, 0.5)
    null = np.arange(401) < 400
    np.testing.assert_allclose(excess(more_effect, more_shift, null)[:400], excess(effect, shift), atol=1e-9)
    assert excess(more_effect, more_shift, null)[-1] > 10
