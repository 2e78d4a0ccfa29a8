"""Gaps at the edge of a spectrum of singular values: what drops out of its smooth end was put there on purpose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT = 0.01


def gap_p_values(log: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """p-values of the first ``most`` gaps of logarithms of singular values, counted from the edge inwards.

    Gaps between there and the middle are the null. At the very edge random spectra are sparser than in the bulk by
    about D^(1/3) (spacing D^(-2/3) against 1/D, Tracy and Widom 1994), which is allowed for.
    """
    gaps = np.abs(np.diff(log))
    typical = float(gaps[most : len(log) // 2].mean()) * len(log) ** (1 / 3)
    found: NDArray[np.float64] = np.minimum(1.0, most * np.exp(-gaps[:most] / max(typical, 1e-12)))
    return found
