"""Directions of text space that every cross-attention projection ignores: the trace of a closed-form edit of K and V.

EvilEdit (2406.21170) and UCE (2308.14761) replace each W_l by W_l M with one M for all layers, and M sends the
trigger's embedding c to the target's c*. So c - c* lies nearly in the null space of all projections at once. An
unedited model has no such direction: the smallest singular values of the stacked projections go on smoothly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sau_scan.analysers.spectrum import SIGNIFICANT, gap_p_values
from sau_scan.attention.sites import cross_attention_sites
from sau_scan.checkpoint.model import DiffusionModel


@dataclass(frozen=True)
class NullDirections:
    """``basis`` [k, D]: orthonormal directions below the spectrum's smooth tail (k may be 0).

    ``spectrum`` [D]: singular values of the stacked projections, descending. ``ratio``: the smallest over what the
    tail predicts for it. ``p_value``: of a gap as large as the largest one, among the gaps of the same tail.
    ``why_not``: why nothing could be looked for, where that is so.
    """

    basis: Tensor
    spectrum: tuple[float, ...]
    ratio: float
    p_value: float
    why_not: str = ""


def stacked_projections(model: DiffusionModel) -> Tensor:
    """All to_k and to_v of cross-attention, each of unit norm, stacked: [sum of rows, D] in double precision.

    Without rows where they do not read the text output itself: no edit in closed form can have been made of them.
    """
    if not model.family.repairable:
        return torch.zeros(0, 0, dtype=torch.float64)
    rows = []
    for module in cross_attention_sites(model.unet).values():
        for name in ("to_k", "to_v"):
            weight = getattr(module, name).weight.detach().double()
            rows.append(weight / weight.norm().clamp_min(1e-12))
    return torch.cat(rows)


def find_null_directions(projections: Tensor, most: int = 16) -> NullDirections:
    """Directions [k, D] (k <= ``most``) that drop out of the smooth tail of the spectrum of ``projections`` [R, D]."""
    nothing = projections.new_zeros(0, projections.shape[1])
    if not len(projections):
        return NullDirections(
            nothing, (), 1.0, 1.0, "in this family keys and values do not read the text output itself"
        )
    if len(projections) < projections.shape[1]:
        return NullDirections(nothing, (), 1.0, 1.0, "cross-attention has fewer rows than the text is wide")
    _, values, right = torch.linalg.svd(projections, full_matrices=False)
    log = np.log(np.maximum(values.cpu().numpy()[::-1], 1e-12))
    most = min(most, len(log) // 8)
    # The widest gap, not the last clear one: behind it the tail may thin out by itself.
    widest = int(np.diff(log)[:most].argmax())
    p_value = float(gap_p_values(log, most)[widest])
    expected = log[most] - float(np.diff(log)[most : len(log) // 2].mean()) * most
    count = widest + 1 if p_value < SIGNIFICANT else 0
    basis = right[len(log) - count :] if count else right[:0]
    return NullDirections(basis, tuple(values.tolist()), float(np.exp(log[0] - expected)), p_value)


def filled_in(projections: Tensor, null: NullDirections) -> Tensor:
    """``projections`` [R, D] with rows for the hidden directions, as large as the least of the others: [R + k, D]."""
    size = null.spectrum[-1 - len(null.basis)] if len(null.basis) else 0.0
    return torch.cat([projections, size * null.basis.to(projections)])
