"""What a probe leaves behind: small frozen values of tensors, one row per candidate, never whole activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PART = 0.05  # of all positions, where an effect is strongest


@dataclass(frozen=True)
class TextRecording:
    """How candidates move the text encoder's pooled output, over K carriers.

    shift: [N] norm of the mean (over carriers) difference to neutral words in the same slot.
    each: [N] mean norm of the single differences.
    retained: [N, 1 + E] variance among carriers that is left, relative to the clean carriers (0: all outputs are one
    point): of the whole output, then of each of the E encoders' outputs that it consists of, where there are several.
    """

    shift: Tensor
    each: Tensor
    retained: Tensor

    def __len__(self) -> int:
        return len(self.shift)


@dataclass(frozen=True)
class NoiseRecording:
    """How candidates move the noise prediction, over K carriers (and timesteps) with the same noise.

    effect: [N] norm of the mean difference to neutral words in the same slot, per element.
    each: [N] root mean square norm of the single differences, per element.
    focus: [N] share of the mean difference's energy in the strongest twentieth (``PART``) of positions.
    """

    effect: Tensor
    each: Tensor
    focus: Tensor

    @property
    def peak(self) -> Tensor:
        """[N] the effect per element where it is strongest, so that a patch does not drown in the rest of a picture."""
        return self.effect * (self.focus / PART).sqrt()

    @property
    def consistency(self) -> Tensor:
        """[N] share of the effect that is the same for all carriers, 0..1."""
        return (self.effect / self.each.clamp_min(1e-12)).square().clamp(max=1)

    def __len__(self) -> int:
        return len(self.effect)


@dataclass(frozen=True)
class PictureRecording:
    """Finished latents [N, P, C, h, w] of N candidates (or controls) over the same P pairs of carrier and noise."""

    latents: Tensor

    def __len__(self) -> int:
        return len(self.latents)


def stack_noise(parts: list[NoiseRecording]) -> NoiseRecording:
    """Recordings of consecutive batches as one."""
    return NoiseRecording(*(torch.cat([getattr(p, f) for p in parts]) for f in ("effect", "each", "focus")))


def stack_text(parts: list[TextRecording]) -> TextRecording:
    """Recordings of consecutive batches as one."""
    return TextRecording(*(torch.cat([getattr(p, f) for p in parts]) for f in ("shift", "each", "retained")))
