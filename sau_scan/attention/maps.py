"""Measures of attention maps: pure functions, no thresholds.

Shapes: B prompts, T denoising steps, L tokens (token 0 begins the text, the last one ends it), h x w places.
``...`` stands for any leading dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import solve_ivp  # type: ignore[import-untyped]
from torch import Tensor

# Beside values of order 1 this is numerically nothing; keeps divisions and logarithms finite.
TINY = 1e-12

# Log-eigenvalues published for CDA are of maps that were stored as 8-bit pictures.
PIXEL_RANGE = 255.0


def token_mass(maps: Tensor) -> Tensor:
    """Share of attention of each token: [..., L, h, w] -> [..., L]. Sums to 1 when all tokens are given."""
    return maps.mean(dim=(-2, -1))


def spatial_entropy(maps: Tensor) -> Tensor:
    """How spread out each map is: [..., L, h, w] -> [..., L] in 0 (one place) to 1 (uniform, or empty)."""
    flat = peak_normalised(maps).flatten(-2)
    places = flat.shape[-1]
    if places == 1:
        return torch.zeros_like(flat[..., 0])
    share = (flat + TINY) / (flat + TINY).sum(-1, keepdim=True)
    nats: Tensor = -(share * share.log()).sum(-1)
    return nats / math.log(places)


def frobenius(maps: Tensor) -> Tensor:
    """Norm of each map: [..., h, w] -> [...]. Its gradient at zero is zero, not NaN."""
    norms: Tensor = torch.linalg.vector_norm(maps, dim=(-2, -1))
    return norms


def peak_normalised(maps: Tensor) -> Tensor:
    """Each map divided by its largest value: [..., h, w] -> [..., h, w] with peak 1."""
    return maps / maps.amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def ftt(maps: Tensor) -> Tensor:
    """Mean Frobenius distance of the maps to their mean: [..., L, h, w] -> [...]; low when tokens are assimilated.

    After T2IShield (2407.04215), on peak-normalised maps averaged over steps, without the token that begins the text.
    """
    scaled = peak_normalised(maps)
    return frobenius(scaled - scaled.mean(dim=-3, keepdim=True)).mean(-1)


def covariance_log_eigenvalues(maps: Tensor, count: int = 20) -> Tensor:
    """Largest log-eigenvalues of the covariance of the maps over tokens: [..., L, h, w] -> [..., min(count, L-1)].

    The diagonal of T2IShield's CDA after its projection on principal components, which is all the information in it;
    descending; maps as 8-bit pictures are, 0 to 255. Needs L of at least 2.
    """
    flat = PIXEL_RANGE * peak_normalised(maps).flatten(-2).double()
    tokens = flat.shape[-2]
    centred = flat - flat.mean(-2, keepdim=True)
    # The singular values of the centred maps give the same eigenvalues as the covariance, without squaring errors.
    singular: Tensor = torch.linalg.svdvals(centred)[..., : min(count, tokens - 1)]
    eigenvalues = singular.square() / (tokens - 1)
    return eigenvalues.clamp_min(TINY).log().to(maps.dtype)


def evolution_rates(maps: Tensor) -> Tensor:
    """How far each token's map moves between steps: [..., T, L, h, w] -> [..., T-1, L]."""
    return frobenius(maps.diff(dim=-4))


def relative_eos_evolution(rates: Tensor) -> Tensor:
    """Move of the last token less that of the inner ones: [..., S, L] -> [..., S].

    The inner tokens' sum is divided by L, not by their number L-2, as in the published code of DAA (2504.20518).
    """
    return rates[..., -1] - rates[..., 1:-1].sum(-1) / rates.shape[-1]


def daa_i(maps: Tensor, steps: Sequence[int] = (3, 4)) -> Tensor:
    """DAA-I of 2504.20518: relative evolution of the last token, summed over ``steps``: [..., T, L, h, w] -> [...].

    Low where that token's attention dissipates slowly. ``steps`` are indices among 50; scale them for fewer steps.
    """
    return relative_eos_evolution(evolution_rates(maps))[..., list(steps)].sum(-1)


def daa_s(maps: Tensor, intervals: int = 7, eos_decay: float = 10.0) -> float:
    """DAA-S of 2504.20518: the last token's relative speed in a linear system coupled by the maps' similarity.

    ``maps`` [T, L, h, w]; token 0 is left out. Nodes decay at rate 1 (the last at ``eos_decay``) and are coupled by
    the Laplacian of the similarity between maps at step floor(t). Sums the first ``intervals`` steps of the solver,
    as published: the value belongs to the adaptive steps of scipy's RK45, and is comparable only with itself.
    """
    states = maps[:, 1:].detach().double().cpu()
    couplings = np.stack([_laplacian(state) for state in states])
    decay = np.full(states.shape[1], -1.0)
    decay[-1] = -eos_decay

    def slope(time: float, state: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        speed: npt.NDArray[np.float64] = decay * state + couplings[int(time)] @ state
        return speed

    solution = solve_ivp(slope, (0, len(states) - 1), frobenius(states[0]).numpy())
    moves = np.diff(solution.y, axis=1)[:, :intervals]
    return float((moves[:-1].mean(0) - moves[-1]).sum())


def _laplacian(state: Tensor) -> npt.NDArray[np.float64]:
    """Coupling of one step: similarity (1 at distance 0) off the diagonal, minus column sums on it. [L, h, w]."""
    flat = state.flatten(1)
    distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    span = max(float(distance.max() + distance.min()), TINY)
    similarity = (span - distance) / span
    np.fill_diagonal(similarity, 0.0)
    coupling: npt.NDArray[np.float64] = similarity.T.copy()
    np.fill_diagonal(coupling, -similarity.sum(0))
    return coupling
