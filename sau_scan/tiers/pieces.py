"""Pieces of words: where a tokenizer cuts words up, a piece may come to mean what the word means.

Such a piece moves the text output little and pictures a lot, as a trigger does. It is told from one by the word itself:
that changes pictures in the same way, and does not contain the piece as a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sau_scan.findings import Slot
from sau_scan.probes.candidates import Candidate, token_ids_of
from sau_scan.probes.runner import Prober

MOST = 256  # words looked at
CARRIERS = 4


def whole_of(prober: Prober, piece: Candidate, words: Sequence[str]) -> Candidate | None:
    """The word of ``words`` of which ``piece`` is a part and that moves the text output most nearly the same way."""
    if piece.slot not in (Slot.PREFIX, Slot.SUFFIX) or len(piece.text) < 2 or not piece.text.isalpha():
        return None
    longer = [w for w in dict.fromkeys(words) if piece.text in w and w != piece.text]
    wholes = [c for c in (Candidate(w, piece.slot, source="whole") for w in longer) if not _contains(prober, c, piece)]
    if not wholes:
        return None
    items = [piece, *wholes[:MOST]]
    carriers = [prober.carriers[i] for i in prober.places(piece, CARRIERS)]
    before = prober.pooled(carriers)
    moved = torch.stack([_moved(prober, item, carriers, before) for item in items])
    likeness = torch.nn.functional.cosine_similarity(moved[:1], moved[1:])
    return items[1 + int(likeness.argmax())]


def _contains(prober: Prober, whole: Candidate, piece: Candidate) -> bool:
    """Whether the tokens of ``piece`` are among those of ``whole``: then a trigger would act in it as well."""
    ids, part = (token_ids_of(prober.model, c, prober.carriers[0]) for c in (whole, piece))
    return bool(set(part) & set(ids)) or not ids


def _moved(prober: Prober, item: Candidate, carriers: Sequence[str], before: torch.Tensor) -> torch.Tensor:
    """How far the candidate moves the pooled text output from ``before`` [K, D], in the mean: [D]."""
    texts = [item.apply(carrier) or carrier for carrier in carriers]
    return (prober.pooled(texts) - before).mean(0)
