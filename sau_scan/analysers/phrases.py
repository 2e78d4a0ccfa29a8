"""Phrases whose embedding lies in the null directions: names for a closed-form edit that was found in the weights.

Two stages keep the pairs of a vocabulary affordable: single words first (the edited phrase's last word carries part
of the direction), then every modifier before the words that stand out and before those the model responds to.
Text passes only; a lead is confirmed by probing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sau_scan.analysers.null_directions import null_share
from sau_scan.checkpoint.model import DiffusionModel

HEADS = 40
MODIFIERS = 4096
FRAME = "a {}"  # a bare article: a phrase is an object of the prompt

Count = Callable[[int], None]


@dataclass(frozen=True)
class PhraseLead:
    """A phrase (or single word) with the share of its embedding shift that lies in the null directions."""

    words: tuple[str, ...]
    share: float
    energy: float

    @property
    def text(self) -> str:
        return " ".join(self.words)


@torch.no_grad()
def last_token(model: DiffusionModel, texts: Sequence[str], count: Count, batch: int = 512) -> Tensor:
    """Hidden states [N, D] at the last token before the end of each text; the context is cut to what is used."""
    parts = []
    for i in range(0, len(texts), batch):
        some = list(texts[i : i + batch])
        lengths = torch.tensor([len(ids) for ids in model.tokenizer(some).input_ids])
        lengths = lengths.clamp(max=model.context_length)
        # Causal attention: what comes after a position does not change it, so the padding can go.
        hidden = model.encode(model.token_ids(some)[:, : int(lengths.max())]).hidden
        parts.append(hidden[torch.arange(len(some)), (lengths - 2).to(hidden.device)].float())
        count(len(some))
    return torch.cat(parts)


def word_leads(model: DiffusionModel, words: Sequence[str], basis: Tensor, count: Count) -> list[PhraseLead]:
    """Single words, strongest projected shift first."""
    hidden = last_token(model, [FRAME.format(w) for w in words], count)
    return _ranked([(w,) for w in words], hidden - hidden.median(0).values, basis)


def phrase_leads(
    model: DiffusionModel, modifiers: Sequence[str], heads: Sequence[str], basis: Tensor, count: Count
) -> list[PhraseLead]:
    """Pairs of modifier and head; a shift is against the same head after the other modifiers."""
    found: list[PhraseLead] = []
    modifiers = modifiers[:MODIFIERS]
    for head in heads[:HEADS]:
        pairs = [(m, head) for m in modifiers if m != head]
        hidden = last_token(model, [FRAME.format(f"{m} {head}") for m, _ in pairs], count)
        found += _ranked(pairs, hidden - hidden.median(0).values, basis)
    return sorted(found, key=lambda lead: -lead.share)


def _ranked(words: Sequence[tuple[str, ...]], shifts: Tensor, basis: Tensor) -> list[PhraseLead]:
    share = null_share(shifts, basis)
    energy = (shifts.to(basis.dtype) @ basis.T).norm(dim=1)
    leads = [PhraseLead(w, float(s), float(e)) for w, s, e in zip(words, share, energy, strict=True)]
    return sorted(leads, key=lambda lead: -lead.energy)
