"""Which component carries a trigger's effect, told by behaviour: no clean reference is needed."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from sau_scan.analysers.null_directions import find_null_directions, stacked_projections
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.findings import Component
from sau_scan.probes.carriers import high_noise
from sau_scan.probes.runner import Counter
from sau_scan.repairs.effect import WHEN, Effect, Probe, Reaction, predict
from sau_scan.repairs.examples import encode


@dataclass(frozen=True)
class Located:
    """``component``: text encoder, cross-attention (its keys and values were edited) or UNet; ``sentence`` says why."""

    component: Component
    sentence: str


def locate(
    model: DiffusionModel, probe: Probe, reaction: Reaction, counter: Counter, hint: Component | None = None
) -> Located:
    """Compares the trigger's shift of the text output with its effect on the noise, each among harmless texts.

    An encoder that was tampered with shows an outlying shift, which explains what the UNet then does. A UNet that was
    tampered with does much on little shift; directions that every layer ignores tell an edit of keys and values in
    closed form. ``hint``: the component that a finding names, on more evidence.
    """
    if hint is None and reaction.text.z > reaction.unexplained.z:
        hint = Component.TEXT_ENCODER
    if hint is Component.TEXT_ENCODER:
        sentence = (
            f"the effect is in the text encoder's output (it moves {_times(reaction.text)} a neutral word's shift)"
        )
        return Located(Component.TEXT_ENCODER, sentence)
    own, rest = shares(model, probe, counter)
    sentence = (
        f"the effect enters through cross-attention: the text output barely shows it. Swapping the trigger's own "
        f"outputs removes {own:.0%} of it, swapping those after it {rest:.0%}"
    )
    edited = len(find_null_directions(stacked_projections(model)).basis) > 0
    return Located(hint or (Component.CROSS_ATTENTION if edited else Component.UNET), sentence)


def _times(effect: Effect) -> str:
    middle = median(effect.null) if effect.null else 0.0
    return f"{effect.value / middle:.1f} times" if middle else "infinitely"


@torch.no_grad()
def shares(model: DiffusionModel, probe: Probe, counter: Counter) -> tuple[float, float]:
    """How much of the effect goes when the trigger's first affected output, or all later ones, are the wanted ones."""
    hidden = encode(model, probe.triggered, counter)
    first = probe.affected & (probe.affected.cumsum(1) == 1)
    full = _effect(model, probe, hidden, counter)
    found = []
    for positions in (first, probe.affected & ~first):
        left = _effect(model, probe, torch.where(positions[..., None], probe.wanted, hidden), counter)
        found.append(max(0.0, 1 - left / max(full, 1e-12)))
    return found[0], found[1]


def _effect(model: DiffusionModel, probe: Probe, hidden: Tensor, counter: Counter) -> float:
    moved = [
        predict(model, probe.noise, high_noise(model, w), hidden, counter) - expected
        for w, expected in zip(WHEN, probe.expected, strict=True)
    ]
    return float(torch.stack(moved, 1).mean(0).square().mean().sqrt())
