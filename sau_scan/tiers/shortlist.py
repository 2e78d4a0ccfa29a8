"""Which candidates the UNet looks at, where it cannot look at all: a pass of it costs what hundreds of texts do.

Those of the rules come first, then what stands out in the text tier, then some that come nearest to it. The rest of the
places goes to a seeded sample, since a trigger in the UNet need not show in the text at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sau_scan.recordings import TextRecording
from sau_scan.tiers.leads import Lead, Scored

NEAREST = 0.25  # of the places that rules and leads leave


def shortlist(scored: Scored, count: int, leads: Sequence[Lead], seed: int) -> Scored:
    """``count`` candidates of one slot, in the order of ``scored``; ``leads`` are strongest first."""
    if count >= len(scored.candidates):
        return scored
    where = {candidate: i for i, candidate in enumerate(scored.candidates)}
    told = [where[lead.candidate] for lead in leads if lead.candidate in where]
    rules = [i for i, c in enumerate(scored.candidates) if c.source != "vocabulary"]
    first = list(dict.fromkeys([*(told if len(rules) > count else rules), *rules, *told]))[:count]
    nearest = scored.text.retained.amin(1).cpu().argsort(stable=True).tolist()
    near = list(dict.fromkeys([*first, *nearest]))[: len(first) + int(NEAREST * (count - len(first)))]
    order = np.random.default_rng([seed, 3]).permutation(len(scored.candidates)).tolist()
    return _only(scored, sorted(list(dict.fromkeys([*near, *order]))[:count]))


def _only(scored: Scored, rows: Sequence[int]) -> Scored:
    """``scored`` of these rows."""
    index = torch.tensor(rows, device=scored.text.shift.device)
    text = TextRecording(*(getattr(scored.text, f)[index] for f in ("shift", "each", "retained")))
    return Scored(tuple(scored.candidates[i] for i in rows), text)
