"""Pictures of a phrase and of its kin, as numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sau_scan.analysers.phrases import Pair
from sau_scan.tiers.phrase_pictures import Drawn
from sau_scan.tiers.phrases import PhraseLead, PhraseTier

PAIR = Pair("dog", "star", -9.0)


def drawn(head: float, target: float, seed: int = 0) -> Drawn:
    """``head``, ``target``: how much more its pictures of either show the target than the head."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(2, 6, 4, 2, 2, generator=generator)
    errors = torch.tensor([[[lean / 2, -lean / 2]] for lean in (head, target)])
    noise = torch.randn(2, 6, 2, generator=generator)
    return Drawn(made[0], made[1], errors + 0.1 * (noise - noise.mean(1, keepdim=True)))


KIN = [drawn(-1.0, 1.1, 1), drawn(-1.1, 0.9, 2), drawn(-0.9, 1.0, 3)]


def lead(p_value: float = 1e-3) -> PhraseLead:
    return PhraseLead("blue", PAIR, 7.0, p_value)


def tier_of(leads: Sequence[PhraseLead], pair: Pair | None = None) -> PhraseTier:
    return PhraseTier(tuple(leads), pair, 0)
