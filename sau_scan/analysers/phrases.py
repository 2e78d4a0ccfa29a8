"""Names for a closed-form edit that was found in the weights: which phrase is drawn as which other.

An edit W_l M that sends a phrase c to a target c* lets keys and values no longer tell the two apart, although the text
encoder does (projection collapse, after GrainPS). So among all "modifier head" against "modifier target" of the words
that the model responds to, the edited phrase has lost most, compared with the same two words after other modifiers. A
word that was edited by itself collapses after all modifiers alike: a concept edit. Text passes only; a lead is
confirmed by probing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sau_scan.analysers.null_directions import NullDirections, filled_in, stacked_projections
from sau_scan.checkpoint.model import DiffusionModel, finite
from sau_scan.detectors.calibration import Array

NEAREST = 3  # words by which it is told which one of a pair was edited
STANDS_APART = 1.5  # times as far out as any other pair; edited words are 1.7 to 5 times, others 1.3 times at most
SAMPLE = 500_000  # entries of a large table that stand for all in a robust deviation

Count = Callable[[int], None]


@dataclass(frozen=True)
class Pair:
    """Two words that keys and values tell apart less than the text encoder does; ``head`` is so with others, too.

    ``score``: robust deviation of the logarithm of that ratio among all pairs of words (negative). ``others``: the
    least score of pairs that share no word with this one.
    """

    head: str
    target: str
    score: float
    others: float = -math.inf

    @property
    def stands_apart(self) -> bool:
        """Told apart less than any other words, by far: the pair was edited, not only much alike."""
        return self.score < STANDS_APART * self.others


@dataclass(frozen=True)
class Collapse:
    """A pair of words that ``modifier`` before them makes alike to keys and values.

    ``score``: robust deviation of the logarithm of the ratio from the same pair's after other words (negative).
    """

    modifier: str
    pair: Pair
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
        hidden = model.tokens_of(model.encode(model.token_ids(some, length=int(lengths.max()))).hidden).float()
        finite(hidden, model.dtype)
        rows = torch.arange(len(some), device=hidden.device)
        ends = lengths.to(hidden.device)
        parts.append(torch.stack([hidden[rows, ends - 2], hidden[rows, ends - 1]], dim=1))
        count(len(some))
    return torch.cat(parts)


@dataclass(frozen=True)
class Sight:
    """``projections`` [R, D], stacked, which tell texts apart; ``whole`` [R + k, D]: what should, None: the texts
    themselves.

    Where the outputs of several encoders lie side by side, none brought to scale by a last norm, their lengths say
    little: most words then look alike to keys and values, and what is hidden drowns. It is seen against the same
    projections with the hidden directions put back.
    """

    projections: Tensor
    whole: Tensor | None = None

    @classmethod
    def of(cls, model: DiffusionModel, null: NullDirections) -> Sight:
        projections = stacked_projections(model)
        return cls(projections, filled_in(projections, null) if len(model.encoders) > 1 else None)

    @cached_property
    def _roots(self) -> tuple[Tensor, Tensor | None]:
        """[D, D] each, by which texts come to lie as far apart as by ``projections``, and by ``whole``."""
        return _root(self.projections), None if self.whole is None else _root(self.whole)

    def told(self, states: Tensor) -> Tensor:
        """Distances [N, N] of ``states`` [N, D] after the projections, relative to what they should be."""
        after, before = self._roots
        seen = states @ after.to(states)
        shown = states if before is None else states @ before.to(states)
        return torch.cdist(seen, seen) / torch.cdist(shown, shown).clamp_min(1e-6)

    def kept(self, differences: Tensor) -> Tensor:
        """Length [...] of ``differences`` [..., D] in double precision after the projections, relative to the same."""
        seen, shown = (_length(differences, part) for part in (self.projections, self.whole))
        return seen / shown.clamp_min(1e-9)


def _root(projections: Tensor) -> Tensor:
    root: Tensor = torch.linalg.qr(projections, mode="r").R.T
    return root


def _length(differences: Tensor, projections: Tensor | None) -> Tensor:
    metric = None if projections is None else (projections.T @ projections).to(differences)
    squares = differences if metric is None else differences @ metric
    length: Tensor = (squares * differences).sum(-1).clamp_min(0).sqrt()
    return length


@torch.no_grad()
def ratios(model: DiffusionModel, sight: Sight, words: Sequence[str], count: Count) -> Tensor:
    """How well keys and values tell "a b" from "a t", for all words a, b, t: logarithms [N, N, N], inf on b = t.

    Mean over the two last positions.
    """
    rows = []
    for modifier in words:
        ends = end_states(model, [f"{modifier} {word}" for word in words], count)
        told = torch.stack([sight.told(states) for states in ends.unbind(1)]).mean(0)
        rows.append(told.clamp_min(1e-9).log().fill_diagonal_(torch.inf).cpu())
    return torch.stack(rows)


@torch.no_grad()
def most_alike(
    model: DiffusionModel,
    sight: Sight,
    words: Sequence[str],
    modifiers: Sequence[str],
    most: int,
    count: Count,
) -> list[str]:
    """The ``most`` words that keys and values tell from some other word least, given how well the encoder does.

    Means over harmless ``modifiers`` before them: an edit of a phrase leaves some of itself after any word.
    """
    if not words:
        return []
    total = torch.zeros(len(words), len(words), device=model.device)
    for modifier in modifiers:
        total += sight.told(end_states(model, [f"{modifier} {word}" for word in words], count)[:, 0])
    nearest = total.fill_diagonal_(torch.inf).min(1).values
    return [words[i] for i in nearest.argsort()[:most].tolist()]


def collapses(table: Tensor, words: Sequence[str], most: int) -> tuple[Pair | None, tuple[Collapse, ...]]:
    """The pair told apart least whatever comes before, and the ``most`` collapses, each of another pair.

    ``table`` [N, N, N] as from ``ratios``. A modifier that is itself taken for one of the pair, more than the two for
    each other, only stands for it. Nothing of fewer than three words.
    """
    n = len(words)
    if n < 3:
        return None, ()
    usual = table.median(0).values
    rows, columns = torch.triu_indices(n, n, 1)
    known = usual[rows, columns]
    likeness = ((usual - known.median()) / _deviation(known)).fill_diagonal_(torch.inf)
    own = likeness[rows, columns]
    away = table[:, rows, columns] - known
    away = away / _deviation(away.flatten()[:: max(1, away.numel() // SAMPLE)])
    standing_in = torch.minimum(likeness[:, rows], likeness[:, columns]) <= own
    itself = torch.arange(n)[:, None]
    away[standing_in | (itself == rows) | (itself == columns)] = 0.0
    lowest, modifier = away.min(0)
    # An edit of the head's keys and values brings it nearer to other words as well.
    near = likeness.sort(1).values[:, : min(NEAREST, n - 1)].mean(1)

    def pair(k: int) -> Pair:
        head, target = sorted((int(rows[k]), int(columns[k])), key=lambda i: float(near[i]))
        share = (rows == head) | (rows == target) | (columns == head) | (columns == target)
        others = own[~share]
        return Pair(words[head], words[target], float(own[k]), float(others.min()) if len(others) else -math.inf)

    best = [k for k in lowest.argsort()[:most].tolist() if lowest[k] < 0]
    found = tuple(Collapse(words[int(modifier[k])], pair(k), float(lowest[k])) for k in best)
    return pair(int(own.argmin())), found


def rivals(
    table: Tensor, words: Sequence[str], modifier: str, pair: Pair, most: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of head and target, the ``most`` other words that keys and values tell least from it after ``modifier``.

    ``table`` [N, N, N] as from ``ratios``. After a modifier that is none of ``words``, it is as after most.
    """

    def near(word: str) -> tuple[str, ...]:
        if not most or word not in words:
            return ()
        rows = table[:, words.index(word)]
        told = rows[words.index(modifier)] if modifier in words else rows.median(0).values
        order = [words[i] for i in told.argsort().tolist()]
        return tuple(w for w in order if w not in (modifier, pair.head, pair.target))[:most]

    return near(pair.head), near(pair.target)


def _deviation(values: Tensor) -> Tensor:
    return (1.4826 * (values - values.median()).abs().median()).clamp_min(1e-9)


@torch.no_grad()
def told_apart(
    model: DiffusionModel,
    sight: Sight,
    pair: Pair,
    modifiers: Sequence[str],
    frames: Sequence[str],
    count: Count,
) -> Array:
    """How well keys and values tell "modifier head" from "modifier target", for every modifier: [M].

    Mean over ``frames`` (which end in their blank) and the two last positions.
    """
    total = torch.zeros(len(modifiers), dtype=torch.float64, device=model.device)
    for frame in frames:
        a, b = (
            end_states(model, [frame.format(f"{m} {word}") for m in modifiers], count)
            for word in (pair.head, pair.target)
        )
        total += sight.kept((a - b).double()).mean(1)
    mean: Array = (total / len(frames)).cpu().numpy()
    return mean
