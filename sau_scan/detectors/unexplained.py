"""Effect on the noise that the text does not explain.

The text encoder's pooled output says what a word *means*; a trigger in the UNet does much and means nothing. Over the
whole vocabulary the effect on the noise prediction grows with the shift of the text output; a candidate far above that
curve is anomalous, a word like "red" is on it. Ours (see docs/architecture.md); no absolute threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped]

from sau_scan.detectors.calibration import Array

BoolArray = NDArray[np.bool_]

NEIGHBOURS = 201  # candidates of similar text shift among which an excess is judged


def excess(effect: Array, shift: Array, null: BoolArray | None = None) -> Array:
    """How far each effect [N] lies above what its text shift [N] explains, in local robust standard deviations [N].

    The curve is isotonic in log-log, fitted on the candidates that ``null`` [N] marks (default: all); its scale is the
    median absolute residual among the nearest of those, never below the overall one: where few words lie, they must
    not look rare.
    """
    x, y = np.log(np.maximum(shift, 1e-9)), np.log(np.maximum(effect, 1e-9))
    null = np.ones(len(x), bool) if null is None else null
    order = np.flatnonzero(null)[np.argsort(x[null], kind="stable")]
    curve = IsotonicRegression(out_of_bounds="clip").fit(x[order], y[order])
    residual = y - curve.predict(x)
    known = residual[order]
    overall = 1.4826 * float(np.median(np.abs(known - np.median(known))))
    places = np.searchsorted(x[order], x)
    half = min(NEIGHBOURS, len(order)) // 2
    z = np.empty(len(x))
    for i, place in enumerate(places):
        start = int(np.clip(place - half, 0, max(0, len(order) - 2 * half)))
        near = known[start : start + 2 * half + 1]
        centre = float(np.median(near))
        scale = max(1.4826 * float(np.median(np.abs(near - centre))), overall, 1e-9)
        z[i] = (residual[i] - centre) / scale
    return z
