"""Names for a closed-form edit that was found in the weights: the words and phrases that it answers to.

The edit is W_l M with M = 1 + u r^T (Sherman and Morrison's form of UCE's closed solution). M u is almost zero, so the
null direction is u, the way from what the phrase meant to what it draws now: words far along it are heads or targets.
r reads the phrase out; since it has to tell the phrase from its near misses it is long, so it is a top right singular
direction of the stacked projections. Modifiers of a head are ranked by how far they move the text along r beyond what
the size of their shift explains. Text passes only; a lead is confirmed by probing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sau_scan.analysers.null_directions import null_share
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.detectors.unexplained import excess

MODIFIERS = 4096
FRAME = "a {}"  # a bare article: a single word as the object of a prompt

Count = Callable[[int], None]


@dataclass(frozen=True)
class PhraseLead:
    """A word or phrase; ``score`` is comparable within one list only."""

    words: tuple[str, ...]
    score: float

    @property
    def text(self) -> str:
        return " ".join(self.words)


@torch.no_grad()
def hidden_states(model: DiffusionModel, texts: Sequence[str], count: Count, batch: int = 256) -> list[Tensor]:
    """Hidden states of batches of texts, [B, L', D] after the first position, cut behind the longest text.

    Causal attention: what comes after a position does not change it, so padding can go.
    """
    parts = []
    for i in range(0, len(texts), batch):
        some = list(texts[i : i + batch])
        longest = max(len(ids) for ids in model.tokenizer(some).input_ids)
        hidden = model.encode(model.token_ids(some)[:, : min(longest, model.context_length)]).hidden
        parts.append(hidden[:, 1:].float())
        count(len(some))
    return parts


def word_leads(model: DiffusionModel, words: Sequence[str], null: Tensor, count: Count) -> list[PhraseLead]:
    """Single words by how far they lie along the null directions [k, D], farthest first.

    The reading is at the last token of the word.
    """
    rows = []
    for start in range(0, len(words), 256):
        some = [FRAME.format(w) for w in words[start : start + 256]]
        lengths = torch.tensor([len(ids) for ids in model.tokenizer(some).input_ids]).clamp(max=model.context_length)
        (hidden,) = hidden_states(model, some, count)
        # One position was cut in front, and the end of the text is not the word.
        rows.append(hidden[torch.arange(len(some)), (lengths - 3).clamp_min(0).to(hidden.device)])
    shifts = torch.cat(rows)
    shifts = shifts - shifts.median(0).values
    energy = null_share(shifts, null).sqrt() * shifts.norm(dim=1)
    order = energy.argsort(descending=True).tolist()
    return [PhraseLead((words[i],), float(energy[i])) for i in order]


def phrase_leads(
    model: DiffusionModel,
    modifiers: Sequence[str],
    heads: Sequence[str],
    frames: Sequence[str],
    readout: Tensor,
    count: Count,
) -> list[PhraseLead]:
    """Pairs of modifier and head, strongest first; ``frames`` have a blank for the phrase; ``readout`` [k, D].

    Scores are excesses (in robust standard deviations, of the best of the k directions) over what the same head after
    other modifiers does along the direction, given the size of the shift.
    """
    found = []
    for head in heads:
        some = [m for m in modifiers[:MODIFIERS] if m != head]
        along = np.zeros((len(readout), len(some)))
        size = np.zeros(len(some))
        for frame in frames:
            moved, norm = _shifts(model, [frame.format(f"{m} {head}") for m in some], readout, count)
            along += moved.T.double().cpu().numpy()
            size += norm.double().cpu().numpy()
        scores = np.max([excess(np.abs(row), size) for row in along], axis=0)
        found += [PhraseLead((m, head), float(s)) for m, s in zip(some, scores, strict=True)]
    return sorted(found, key=lambda lead: -lead.score)


def _shifts(model: DiffusionModel, texts: Sequence[str], readout: Tensor, count: Count) -> tuple[Tensor, Tensor]:
    """Mean shift along the directions [N, k] and mean norm of the shift [N], against the median text."""
    parts = hidden_states(model, texts, count)
    length = min(p.shape[1] for p in parts)
    hidden = torch.cat([p[:, :length] for p in parts])
    shifts = hidden - hidden.median(0).values
    return (shifts @ readout.T.to(shifts)).mean(1), shifts.norm(dim=2).mean(1)
