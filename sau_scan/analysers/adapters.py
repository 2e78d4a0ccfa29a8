"""To which texts a change of known weights, as by a LoRA, does more than to others.

With the base at hand a change need not be found, only read: ``rank_texts`` says for which texts keys and values of
cross-attention come out most differently, after "candidates ranked by |dW E(c)| / |W E(c)|". It proposes; a lead is
confirmed by probing, since an honest style has favourite words, too.

Measured on eight attacked models of the zoo against their bases, whole and cut to rank 4: among about 2,000 words the
trigger is 1st to 8th, and once 32nd; honest edits put their own word first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sau_scan.checkpoint.adapters.layouts import Place
from sau_scan.detectors.calibration import robust_z, tail_p_values

CHUNK = 4096  # texts at a time
TEXT_PROJECTIONS = (".attn2.to_k.weight", ".attn2.to_v.weight")


@dataclass(frozen=True)
class ChangedText:
    """``ratio``: change of the text's keys and values, relative to them. ``z``, ``p_value``: among all texts."""

    text: str
    ratio: float
    z: float
    p_value: float


def is_text_projection(place: Place) -> bool:
    """Whether a parameter makes keys or values of texts."""
    return place[0] == "unet" and place[1].endswith(TEXT_PROJECTIONS)


def rank_texts(
    texts: Sequence[str],
    before: Tensor,
    after: Tensor,
    projections: Iterable[tuple[Tensor, Tensor]],
    most: int = 32,
) -> list[ChangedText]:
    """The ``most`` texts whose keys and values change most, strongest first.

    ``before``, ``after`` [N, P, D]: what the text encoder gives for each text at P positions without and with the
    change (``end_states``; the same tensor where the encoder does not change). ``projections``: of each layer that
    makes keys or values, the weights without and with it [R, D].
    """
    ratios = response_changes(before, after, projections)
    logs = ratios.clamp_min(1e-12).log().double().cpu().numpy()
    # A text may stand out at its last token or at its end.
    z = np.stack([robust_z(column) for column in logs.T]).max(axis=0)
    p_values = tail_p_values(z)
    order = np.argsort(-z, kind="stable")[:most].tolist()
    best = ratios.max(dim=1).values
    return [ChangedText(texts[i], float(best[i]), float(z[i]), float(p_values[i])) for i in order]


def response_changes(before: Tensor, after: Tensor, projections: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """|W' e' - W e| / |W e| [N, P] over all ``projections``, each W of unit norm; ``before`` and ``after`` [N, P, D].

    Through one Gram matrix of all layers, so that a large vocabulary costs little more than a small one.
    """
    width = before.shape[-1]
    both = torch.zeros(2 * width, 2 * width, dtype=torch.float64, device=before.device)
    plain = both.new_zeros(width, width)
    for old, new in projections:
        scale = old.double().norm().clamp_min(1e-12)
        stacked = torch.cat([new, -old], dim=1).to(both) / scale
        both += stacked.T @ stacked
        plain += (old.to(both) / scale).T @ (old.to(both) / scale)
    parts = []
    for e, moved in zip(_chunks(before), _chunks(after), strict=True):
        joint = torch.cat([moved, e], dim=1).double()
        change = ((joint @ both) * joint).sum(1).clamp_min(0)
        parts.append((change / ((e.double() @ plain) * e.double()).sum(1).clamp_min(1e-24)).sqrt())
    return torch.cat(parts).reshape(before.shape[:2]).float()


def _chunks(states: Tensor) -> tuple[Tensor, ...]:
    """[N, P, D] -> [up to CHUNK, D] each."""
    return torch.split(states.flatten(0, 1), CHUNK)
