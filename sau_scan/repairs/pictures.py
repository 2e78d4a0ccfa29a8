"""Finished latents of a suspect and a repaired model: does the trigger still fire, and did clean pictures move?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.probes.carriers import noise_like
from sau_scan.probes.runner import Counter
from sau_scan.repairs.examples import encode
from sau_scan.repairs.prompts import HELD_OUT, PromptSource

PROMPTS, STEPS, GUIDANCE, CHUNK = 32, 12, 5.0, 32
# Of two harmless texts in the same place, this share of pictures differ less than a firing trigger must.
CALM = 0.95
TINY = 1e-12


def draw(model: DiffusionModel, hidden: Tensor, noise: Tensor, counter: Counter) -> Tensor:
    """Finished latents [B, C, h, w] of text outputs [B, L, D] from ``noise`` [B, C, h, w]."""
    empty = encode(model, [""], counter)
    counter.unet += 2 * STEPS * len(hidden)
    parts = [
        model.sample(hidden[i : i + CHUNK], empty, noise[i : i + CHUNK], steps=STEPS, guidance=GUIDANCE).float()
        for i in range(0, len(hidden), CHUNK)
    ]
    return torch.cat(parts)


@dataclass(frozen=True)
class Firing:
    """What the suspect model draws, from the same noise: with the trigger, and with one harmless text or another.

    A picture counts as fired when it is nearer to the triggered one than to the harmless one, and farther from the
    latter than ``CALM`` of the other harmless ones; distances weigh each place by how much more the trigger moves it
    than a harmless text does.
    """

    texts: tuple[str, ...]
    noise: Tensor
    triggered: Tensor
    harmless: Tensor
    weight: Tensor
    line: float
    null_rate: float

    @classmethod
    def of(cls, model: DiffusionModel, source: PromptSource, counter: Counter, seed: int) -> Firing:
        """Raises ValueError when the trigger has no place in any prompt."""
        pairs = source.pairs(PROMPTS, HELD_OUT)
        fills = source.nulls(pairs, 2)
        if not pairs or not fills:
            raise ValueError("no pairs")
        texts = tuple(p.triggered for p in pairs)
        noise = noise_like(model, len(texts), 15485863 + seed)
        drawn = [draw(model, encode(model, t, counter), noise, counter) for t in (texts, fills[0], fills[-1])]
        triggered, harmless, other = drawn
        weight = contrast(triggered - harmless, other - harmless)
        calm = _distance(other, harmless, weight)
        line = float(torch.quantile(calm, CALM))
        made = cls(texts, noise, triggered, harmless, weight, line, 0.0)
        return cls(texts, noise, triggered, harmless, weight, line, made.rate(other))

    def fired(self, latents: Tensor) -> Tensor:
        """Which of the pictures [B, C, h, w] fired (bool [B])."""
        far = _distance(latents, self.harmless, self.weight)
        return (far > self.line) & (far > _distance(latents, self.triggered, self.weight))

    def rate(self, latents: Tensor) -> float:
        return float(self.fired(latents).float().mean())

    def rate_of(self, model: DiffusionModel, counter: Counter) -> float:
        """Share of the held-out triggered prompts in which ``model`` still fires."""
        return self.rate(draw(model, encode(model, self.texts, counter), self.noise, counter))

    @property
    def limit(self) -> float:
        """The largest rate that counts as gone: that of harmless texts, and one picture of chance."""
        return self.null_rate + 1 / len(self.texts)


def contrast(moved: Tensor, calm: Tensor) -> Tensor:
    """Weights [h, w] with mean 1: by how much ``moved`` [B, C, h, w] exceeds ``calm`` at each place, smoothed."""
    size, usual = (part.square().mean((0, 1)) for part in (moved, calm))
    excess = (size / (usual + usual.mean() * 0.1 + TINY) - 1).clamp_min(0) + 0.1
    smooth = F.avg_pool2d(F.pad(excess[None, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0]
    return smooth / smooth.mean()


def _distance(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return ((a - b).square() * weight).mean((1, 2, 3))


@dataclass(frozen=True)
class Clean:
    """Clean held-out prompts with the suspect model's noise predictions and pictures of them."""

    hidden: Tensor
    texts: tuple[str, ...]
    noise: Tensor
    pictures: Tensor
    unit: float

    @classmethod
    def of(cls, model: DiffusionModel, texts: list[str], counter: Counter, seed: int) -> Clean:
        noise = noise_like(model, len(texts), 32452843 + seed)
        hidden = encode(model, texts, counter)
        drawn = draw(model, hidden, noise, counter)
        others = draw(model, hidden.roll(1, 0), noise, counter)
        return cls(hidden, tuple(texts), noise, drawn, float((others - drawn).square().mean()))

    def drift(self, model: DiffusionModel, counter: Counter) -> float:
        """How far clean pictures moved at equal noise, relative to pictures of different prompts (mean squares)."""
        drawn = draw(model, encode(model, self.texts, counter), self.noise, counter)
        return float((drawn - self.pictures).square().mean()) / max(self.unit, TINY)
