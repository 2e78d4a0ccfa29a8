"""The adapter tier: what a LoRA adds to the effect of a word, beside what it adds to that of harmless words.

Its base is at hand, so that meaning cancels: both are asked about the same prompts and noise. A style adds about the
same whatever the prompt says; a trigger is a word to which the file adds much more. It is asked at less than its full
strength, at which an overtrained trigger has spoilt many words beside its own: of a backdoored LoRA of the zoo, the
trigger lies 1.5 deviations above ordinary words at full strength and 3.1 at 0.4; the strongest of those is at 1.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sau_scan.detectors.calibration import adjusted, tail_p_values
from sau_scan.findings import Component, Slot
from sau_scan.probes.adapted import Adapted
from sau_scan.probes.adapter_words import ChangedWords
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.carriers import high_noise
from sau_scan.probes.plan import Recipe
from sau_scan.probes.runner import Prober
from sau_scan.tiers.leads import Lead, evidence

CARRIERS = 2
STRENGTH = 0.4
NULL, FEWEST = 64, 4  # ordinary words of the vocabulary; with fewer, nothing can be said
CHANCE = 0.05  # after Benjamini and Hochberg over all words of a slot; finished pictures decide
SLOTS = (Slot.PREFIX, Slot.SUFFIX)


def contrast_passes(changed: ChangedWords, recipe: Recipe) -> int:
    """UNet passes of the tier at most: with and without the adapter, each word and each neutral word."""
    words = len(changed.known) + len(changed.spelled)
    return 2 * len(SLOTS) * CARRIERS * (words + NULL + recipe.neutrals) if words else 0


@dataclass
class Contrast(Prober):
    """A prober of what the LoRA adds to its base, at ``STRENGTH``: text outputs with and without it side by side."""

    adapted: Adapted | None = None

    @classmethod
    def of(cls, prober: Prober) -> Self:
        """Shares model and counter with ``prober``."""
        own = {f.name: getattr(prober, f.name) for f in fields(Prober) if f.init}
        return cls(**own, adapted=Adapted.of(prober.model))

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Hidden states [B, 2 (L + R), D] with the LoRA and without it, and the pooled output with it."""
        assert self.adapted is not None
        with self.adapted.at(STRENGTH):
            hidden, pooled = super().encode(texts)
        plain = hidden
        if self.adapted.encoders:
            with self.adapted.at(0.0):
                plain = super().encode(texts)[0]
        return torch.cat([hidden, plain], dim=1), pooled

    @torch.no_grad()
    def predict(self, hidden: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """What the LoRA adds to the noise prediction."""
        assert self.adapted is not None
        own, plain = hidden.chunk(2, dim=1)
        with self.adapted.at(STRENGTH):
            with_it = super().predict(own, noise, timestep)
        with self.adapted.at(0.0):
            return with_it - super().predict(plain, noise, timestep)


def adapter_tier(prober: Prober, recipe: Recipe, changed: ChangedWords, words: Sequence[str]) -> list[Lead]:
    """Words to which a LoRA adds more than to ordinary ``words``, strongest first; none for other inputs."""
    asked = (*changed.known, *changed.spelled)
    if not asked or not recipe.generated:
        return []
    rest = [word for word in words if word not in changed.known]
    null = np.random.default_rng(prober.seed).permutation(rest)[:NULL].tolist()
    if len(null) < FEWEST:
        return []
    contrast = Contrast.of(prober)
    leads = [lead for slot in SLOTS for lead in _leads(prober, contrast, recipe, slot, asked, null)]
    return sorted(leads, key=lambda lead: -lead.score)


def _leads(
    prober: Prober,
    contrast: Contrast,
    recipe: Recipe,
    slot: Slot,
    asked: Sequence[str],
    null: Sequence[str],
) -> list[Lead]:
    """All words of one slot that stand out, or the strongest one."""
    items = [Candidate(word, slot, source="adapter") for word in (*asked, *null)]
    effect = contrast.noise(items, CARRIERS, [high_noise(prober.model)]).effect.double().cpu().numpy()
    size = np.log(np.maximum(effect, 1e-12))
    usual, count = size[len(asked) :], len(asked)
    z = (size - np.median(usual)) / max(1.4826 * float(np.median(np.abs(usual - np.median(usual)))), 1e-9)
    p_values = adjusted(tail_p_values(z[:count], z[count:]))
    beyond = [i for i in np.argsort(-z[:count]).tolist() if p_values[i] < CHANCE]
    chosen = beyond or [int(np.argmax(z[:count]))]
    shift = prober.text([items[i] for i in chosen], recipe.text_carriers).shift
    low, middle, high = np.quantile(effect[count:], (0.05, 0.5, 0.95))
    return [
        Lead(
            items[i],
            "adapter-contrast",
            Component.CROSS_ATTENTION,
            float(z[i]),
            float(p_values[i]),
            float(shift[row]),
            (evidence("what the LoRA adds to its effect on the noise", effect[i], middle, low, high, p_values[i]),),
            -math.inf if p_values[i] < CHANCE else math.inf,
        )
        for row, i in enumerate(chosen)
    ]
