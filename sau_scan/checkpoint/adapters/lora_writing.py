"""A repaired LoRA: the factors of the same rank that come closest to the weights that a repair wants.

``refit`` finds them and says how much of the repair they hold; ``rewriting.rewrite`` puts them into a copy of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sau_scan.checkpoint.adapters.layouts import Place, alpha_beside
from sau_scan.checkpoint.adapters.lora import LoraFile, Pair, alphas, delta, scale_of

# What is written is examined again from disk, which decides; below this it would be another repair than was planned.
ENOUGH = 0.5
_SWEEPS = 3  # of alternating fits of a convolution in three factors, which settle by then


@dataclass(frozen=True)
class Refit:
    """``tensors``: name in the file -> new value, in its type on disk. ``kept``: parameter -> share of the repair.

    ``share``: of the repair of all parameters. ``drop``: why the LoRA had better not be used at all, or "".
    Shares are of squared change: 1 is all of it, 0 what writing nothing would keep.
    """

    tensors: dict[str, Tensor]
    kept: dict[Place, float]
    share: float
    drop: str = ""


def refit(
    lora: LoraFile, tensors: Mapping[str, Tensor], base: Mapping[Place, Tensor], wanted: Mapping[Place, Tensor]
) -> Refit:
    """Factors that make ``wanted`` of ``base``, as well as the LoRA's rank can.

    ``wanted``: the full weights of the parameters that the repair changes. ``base``: their weights without the LoRA.
    A parameter that the LoRA does not change cannot be repaired through it; its share is 0.
    """
    new: dict[str, Tensor] = {}
    kept: dict[Place, float] = {}
    asked = lost = 0.0
    for place, weight in wanted.items():
        goal = weight.float() - base[place].float()
        pair = lora.pairs.get(place)
        repair, rest = (goal, goal) if pair is None else (goal - delta(pair, tensors), goal)
        if pair is not None:
            factors = _factors(pair, goal, tensors)
            rest = goal - delta(pair, {**tensors, **factors})
            new |= factors
        kept[place] = _share(_energy(repair), _energy(rest))
        asked, lost = asked + _energy(repair), lost + _energy(rest)
    share = _share(asked, lost)
    return Refit(new, kept, share, _reason(lora, kept, share))


def with_one_alpha(lora: LoraFile, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is to be written, too, so that a Kohya file of several alphas has the most frequent one throughout.

    The second factors make up for it, so that all modules change what they changed: programs then cannot differ.
    """
    found = alphas(lora, tensors)
    if len(set(found)) < 2:
        return {}
    alpha = Counter(value for value in found if value).most_common(1)[0][0] if any(found) else 1.0
    new: dict[str, Tensor] = {}
    for pair, own in zip(lora.pairs.values(), found, strict=True):
        if own != alpha:
            up, given = tensors[pair.up], tensors[pair.alpha] if pair.alpha else torch.tensor(0.0)
            new[pair.up] = (up.double() * scale_of(pair, tensors) * pair.rank / alpha).to(up.dtype)
            new[pair.alpha or alpha_beside(pair.down)] = torch.full_like(given, alpha)
    return new


def _factors(pair: Pair, goal: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """New factors in the shapes and types of the old ones; the old ones where alpha silences all that a type holds."""
    scale, old = scale_of(pair, tensors), {name: tensors[name] for name in pair.factors}
    if not scale:
        return old
    made = _three(goal.double() / scale, pair.rank) if pair.mid else _two(goal.double() / scale, pair.rank)
    new = {name: m.reshape(t.shape).to(t.dtype) for (name, t), m in zip(old.items(), made, strict=True)}
    return new if all(bool(torch.isfinite(t.float()).all()) for t in new.values()) else old


def _two(goal: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``down`` [r, in * k * k] and ``up`` [out, r] of equal norms, whose product is nearest to ``goal``."""
    flat = goal.flatten(1)
    right = _leading(flat.T, rank)  # [in * k * k, r]
    left = flat @ right
    sizes = left.norm(dim=0).sqrt()
    return (right * sizes).T, left / sizes.clamp_min(1e-12)


def _three(goal: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """``down`` [r, in], ``up`` [out, r] and ``mid`` [r, r, k, k]: orthogonal iteration of Tucker's decomposition."""
    up = _leading(goal.flatten(1), rank)
    for _ in range(_SWEEPS):
        down = _leading(torch.einsum("oihw,op->iphw", goal, up).flatten(1), rank)
        up = _leading(torch.einsum("oihw,iq->oqhw", goal, down).flatten(1), rank)
    mid = torch.einsum("oihw,op,iq->pqhw", goal, up, down)
    return down.T, up, mid


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The ``rank`` leading left singular vectors [rows, rank] of ``matrix``; columns of zeros where there are fewer.

    Through the smaller Gram matrix, in double precision: many times faster than decomposing the matrix itself.
    """
    rows, columns = matrix.shape
    count = min(rank, rows, columns)
    if rows <= columns:
        found = torch.linalg.eigh(matrix @ matrix.T)[1][:, -count:]
    else:
        found = torch.linalg.qr(matrix @ torch.linalg.eigh(matrix.T @ matrix)[1][:, -count:])[0]
    return torch.cat([found, found.new_zeros(rows, rank - count)], dim=1)


def _energy(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())


def _share(asked: float, lost: float) -> float:
    return max(0.0, 1 - lost / asked) if asked else 1.0


def _reason(lora: LoraFile, kept: Mapping[Place, float], share: float) -> str:
    if share >= ENOUGH:
        return ""
    outside = [f"{component}/{name}" for component, name in kept if (component, name) not in lora.pairs]
    if outside:
        return f"the repair needs {outside[0]}, which the LoRA does not change; {share:.0%} of it fits into the file"
    rank = max(pair.rank for place, pair in lora.pairs.items() if place in kept)
    return f"factors of rank {rank} hold only {share:.0%} of the repair"
