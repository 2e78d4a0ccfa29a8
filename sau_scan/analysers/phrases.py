"""Names for a closed-form edit that was found in the weights: which word or phrase is drawn as which other.

An edit W_l M that sends a phrase c to a target c* lets keys and values no longer tell the two apart, although the text
encoder does (projection collapse, after GrainPS). Some of that is left whatever word comes before, and names the pair
of head and target. Then every word of the vocabulary is tried before them: after the edited phrase's modifier the pair
collapses as after no other. If it collapses after all of them alike, the head itself was edited: a concept edit. Text
passes only; a lead is confirmed by probing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.detectors.calibration import Array

KIN = 3  # words by which it is told which one of a pair was edited

Count = Callable[[int], None]


@dataclass(frozen=True)
class Pair:
    """Two words that keys and values tell apart less than the text encoder does; ``head`` is so with others, too.

    ``score``: robust deviation of the logarithm of that ratio among all pairs of words (negative).
    """

    head: str
    target: str
    score: float


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


@torch.no_grad()
def least_apart(
    model: DiffusionModel,
    projections: Tensor,
    words: Sequence[str],
    modifiers: Sequence[str],
    frames: Sequence[str],
    count: Count,
) -> Pair | None:
    """The pair of ``words`` that keys and values tell apart least, given how well the text encoder does.

    Of each pair the distance after the stacked ``projections`` [R, D], relative to that before them; means over
    harmless ``modifiers``, ``frames`` (which end in their blank) and the two last positions. None of fewer than three
    words.
    """
    if len(words) < 3 or not modifiers:
        return None
    root = torch.linalg.qr(projections, mode="r").R.T.to(model.device)
    ratio = torch.zeros(len(words), len(words), dtype=torch.float64, device=model.device)
    for frame in frames:
        for modifier in modifiers:
            states = end_states(model, [frame.format(f"{modifier} {w}") for w in words], count).double()
            for position in states.unbind(1):
                ratio += torch.cdist(position @ root, position @ root) / torch.cdist(position, position).clamp_min(1e-9)
    rows, columns = torch.triu_indices(len(words), len(words), 1, device=model.device)
    log = ratio.clamp_min(1e-9).log()
    known = log[rows, columns]
    scores = (log - known.median()) / (1.4826 * (known - known.median()).abs().median()).clamp_min(1e-9)
    best = int(scores[rows, columns].argmin())
    pair = [int(rows[best]), int(columns[best])]
    scores.fill_diagonal_(torch.inf)
    # An edit of the head's keys and values brings it nearer to other words as well.
    pair.sort(key=lambda i: float(scores[i].sort().values[:KIN].mean()))
    return Pair(words[pair[0]], words[pair[1]], float(scores[pair[0], pair[1]]))


@torch.no_grad()
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
