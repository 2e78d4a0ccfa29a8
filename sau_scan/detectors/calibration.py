"""From scores to p-values to decisions, against a null made inside the same model.

Scores of harmless candidates in the same slot are the null. Their upper tail is extrapolated by a generalised Pareto
distribution (Pickands 1975; Coles, An Introduction to Statistical Modeling of Extreme Values, ch. 4), and many tries
are paid for by Benjamini and Hochberg (1995).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

Array = NDArray[np.float64]

TAIL = 0.1  # share of the null that the tail is fitted on
TRIMMED = 0.01  # share at the top that may be a trigger itself, and is kept out of its own null
MIN_NULL = 64


def robust_z(scores: Array) -> Array:
    """Scores [N] in units of the median absolute deviation (scaled to a standard deviation) from the median."""
    centre = np.median(scores)
    scale = 1.4826 * float(np.median(np.abs(scores - centre)))
    return np.asarray((scores - centre) / max(scale, 1e-12))


def tail_p_values(scores: Array, null: Array | None = None) -> Array:
    """Upper-tail p-values [N] of ``scores`` against ``null`` (default: the scores without their top 1 %).

    Below the tail's threshold they are empirical; above it a generalised Pareto fit extrapolates, its shape held
    to 0 (exponential) or more: a shorter tail than the exponential is never claimed. With fewer than 64 null scores no
    p-value is smaller than one over their number.
    """
    if null is None:
        kept = max(1, len(scores) - max(1, round(TRIMMED * len(scores))))
        null = np.sort(scores)[:kept]
    null = np.sort(null)
    empirical = (len(null) - np.searchsorted(null, scores, side="left") + 1) / (len(null) + 1)
    if len(null) < MIN_NULL:
        return np.asarray(empirical)
    threshold = float(np.quantile(null, 1 - TAIL))
    excess = null[null > threshold] - threshold
    if len(excess) < 6 or excess.max() <= 0:
        return np.asarray(empirical)
    shape, scale = _pareto(excess)
    beyond = TAIL * stats.genpareto.sf(scores - threshold, shape, 0.0, scale)
    return np.where(scores > threshold, np.maximum(beyond, 1e-12), empirical)


def _pareto(excess: Array) -> tuple[float, float]:
    """Shape (0..0.5) and scale by probability-weighted moments (Hosking and Wallis 1987), stable on small samples."""
    x = np.sort(excess)
    n = len(x)
    mean = float(x.mean())
    weighted = float((x * (1 - (np.arange(1, n + 1) - 0.35) / n)).mean())
    shape = 2 - mean / max(mean - 2 * weighted, 1e-12)
    shape = float(np.clip(shape, 0.0, 0.5))
    return shape, mean * (1 - shape)


def adjusted(p_values: Array) -> Array:
    """p-values [N] after Benjamini and Hochberg."""
    return np.asarray(stats.false_discovery_control(p_values)) if len(p_values) else p_values
