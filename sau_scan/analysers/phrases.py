"""Names for a closed-form edit that was found in the weights: which word or phrase is drawn as which other.

An edit W_l M that sends a phrase c to a target c* leaves c - c* in the null space of all projections, so head and
target are words at opposite ends of the null direction. For such a pair every word of the vocabulary is tried as a
modifier: the phrase whose keys and values cannot be told from the target's, although the text encoder tells them
apart, is the edited one (projection collapse, after GrainPS). If that holds for every modifier, the head itself was
edited: a concept edit. Text passes only; a lead is confirmed by probing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.detectors.calibration import Array

FRAME = "a {}"  # a bare article: a single word as the object of a prompt

Count = Callable[[int], None]


@dataclass(frozen=True)
class Pair:
    """Two words at opposite ends of a null direction (which is head and which target is not known yet)."""

    head: str
    target: str
    distance: float


@torch.no_grad()
def end_states(model: DiffusionModel, texts: Sequence[str], count: Count, batch: int = 256) -> Tensor:
    """Hidden states [N, 2, D] at the last token of each text and at its end.

    Causal attention: what comes after a position does not change it, so padding can go.
    """
    parts = []
    for i in range(0, len(texts), batch):
        some = list(texts[i : i + batch])
        lengths = torch.tensor([len(ids) for ids in model.tokenizer(some).input_ids]).clamp(max=model.context_length)
        hidden = model.encode(model.token_ids(some)[:, : int(lengths.max())]).hidden.float()
        rows = torch.arange(len(some), device=hidden.device)
        ends = lengths.to(hidden.device)
        parts.append(torch.stack([hidden[rows, ends - 2], hidden[rows, ends - 1]], dim=1))
        count(len(some))
    return torch.cat(parts)


def pole_pairs(model: DiffusionModel, words: Sequence[str], null: Tensor, count: Count, each: int = 3) -> list[Pair]:
    """Pairs of ``words`` from the two ends of the null directions [k, D] (of two at most), widest first."""
    states = end_states(model, [FRAME.format(w) for w in words], count)[:, 0]
    states = states - states.median(0).values
    found: dict[frozenset[str], Pair] = {}
    for direction in null.flip(0)[:2].to(states):
        along = states @ direction
        order = along.argsort().tolist()
        for low in order[:each]:
            for high in order[-each:]:
                pair = Pair(words[low], words[high], float(along[high] - along[low]))
                found.setdefault(frozenset((pair.head, pair.target)), pair)
    return sorted(found.values(), key=lambda p: -p.distance)


def told_apart(
    model: DiffusionModel,
    projections: Tensor,
    pair: Pair,
    modifiers: Sequence[str],
    frames: Sequence[str],
    count: Count,
) -> Array:
    """How well keys and values tell "modifier head" from "modifier target", for every modifier: [M].

    The distance after the stacked ``projections`` [R, D], relative to that before them; mean over ``frames`` (which
    end in their blank) and the two last positions.
    """
    metric = (projections.T @ projections).to(model.device)
    ratios = torch.zeros(len(modifiers), dtype=torch.float64, device=model.device)
    for frame in frames:
        a, b = (
            end_states(model, [frame.format(f"{m} {word}") for m in modifiers], count)
            for word in (pair.head, pair.target)
        )
        apart = (a - b).double()
        after = torch.einsum("npd,de,npe->np", apart, metric, apart).clamp_min(0).sqrt()
        ratios += (after / apart.norm(dim=2).clamp_min(1e-9)).mean(1)
    ratio: Array = (ratios / len(frames)).cpu().numpy()
    return ratio


def interplay(
    model: DiffusionModel,
    projections: Tensor,
    modifiers: Sequence[str],
    heads: Sequence[str],
    frames: Sequence[str],
    count: Count,
) -> Array:
    """How much more keys and values make of each phrase than the text encoder does: robust deviations [M, H].

    Interplay is what is left of a phrase's hidden state when what its modifier does to all heads, and its head has
    from all modifiers, is taken away. An edit of one phrase blows up its interplay and no other phrase's.
    """
    metric = (projections.T @ projections).to(model.device)
    after, before = (torch.zeros(len(modifiers), len(heads), dtype=torch.float64, device=model.device) for _ in "ab")
    for frame in frames:
        states = end_states(model, [frame.format(f"{m} {h}") for m in modifiers for h in heads], count).double()
        left = states.reshape(len(modifiers), len(heads), *states.shape[1:])
        left = left - left.median(0, keepdim=True).values
        left = left - left.median(1, keepdim=True).values
        after += torch.einsum("mhpd,de,mhpe->mhp", left, metric, left).clamp_min(0).sqrt().mean(2)
        before += left.norm(dim=3).mean(2)
    ratio = (after.clamp_min(1e-9) / before.clamp_min(1e-9)).log()
    ratio = ratio - ratio.median(0, keepdim=True).values - ratio.median(1, keepdim=True).values + ratio.median()
    scores: Array = (ratio / (1.4826 * ratio.abs().median()).clamp_min(1e-9)).cpu().numpy()
    return scores
