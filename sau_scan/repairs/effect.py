"""How strongly a trigger acts, against harmless texts in the same places of the same prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sau_scan.checkpoint.memory import chunk
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.probes.carriers import high_noise, noise_like
from sau_scan.probes.runner import Counter
from sau_scan.repairs.examples import encode, make_examples
from sau_scan.repairs.prompts import Pair, PromptSource

# Layout is decided at high noise, local things somewhat later.
WHEN = (0.9, 0.6)
NULLS, PLACES, CHUNK = 40, 12, 64


@dataclass(frozen=True)
class Effect:
    """``value`` for the trigger and the same for harmless texts: root mean square of what all places have in common."""

    value: float
    null: tuple[float, ...]

    @property
    def rank(self) -> float:
        """Share of harmless texts that act at least as strongly, counting the trigger itself (a p-value)."""
        return (1 + sum(n >= self.value for n in self.null)) / (1 + len(self.null))

    @property
    def z(self) -> float:
        """Robust z of the logarithm among harmless texts."""
        return robust_z(self.value, self.null)

    def line(self, share: float = 0.95) -> float:
        """The value that ``share`` of the harmless texts stay below."""
        return sorted(self.null)[min(len(self.null) - 1, int(share * len(self.null)))] if self.null else 0.0


@dataclass(frozen=True)
class Reaction:
    """Effects of one trigger on the text output (``text``) and on the noise prediction (``noise``), and their ratio."""

    text: Effect
    noise: Effect

    @property
    def unexplained(self) -> Effect:
        """Effect on the noise per shift of the text output: what the meaning of the text doesn't account for."""
        null = tuple(n / max(t, 1e-9) for n, t in zip(self.noise.null, self.text.null, strict=True))
        return Effect(self.noise.value / max(self.text.value, 1e-9), null)


def robust_z(value: float, null: Sequence[float]) -> float:
    """Distance of log(value) from the median of the null's logarithms, in robust standard deviations."""
    if not null:
        return 0.0
    logs = torch.tensor(null, dtype=torch.float64).clamp_min(1e-12).log()
    spread = 1.4826 * (logs - logs.median()).abs().median().item()
    return (math.log(max(value, 1e-12)) - logs.median().item()) / max(spread, 1e-2)


@dataclass(frozen=True)
class Probe:
    """Places on which effects are measured; made once, on the suspect model.

    The trigger is compared with ``wanted``, which gives ``expected`` noise predictions; harmless texts are compared
    with ``neutral``, which gives ``usual`` ones.
    """

    pairs: tuple[Pair, ...]
    nulls: tuple[tuple[str, ...], ...]
    wanted: Tensor
    neutral: Tensor
    affected: Tensor
    noise: Tensor
    expected: tuple[Tensor, ...]
    usual: tuple[Tensor, ...]

    @property
    def triggered(self) -> tuple[str, ...]:
        return tuple(p.triggered for p in self.pairs)


@torch.no_grad()
def make_probe(model: DiffusionModel, source: PromptSource, part: int, counter: Counter, places: int = PLACES) -> Probe:
    """``places`` prompts of ``part`` with the trigger. Raises ValueError if it has no place in any prompt."""
    pairs = source.pairs(places, part)
    examples = make_examples(model, pairs, counter)
    noise = noise_like(model, len(pairs), 7919 * (source.seed + 1) + part)
    return Probe(
        tuple(pairs),
        tuple(tuple(row) for row in source.nulls(pairs, NULLS)),
        examples.wanted,
        examples.neutral,
        examples.affected,
        noise,
        *(
            tuple(predict(model, noise, high_noise(model, w), hidden, counter) for w in WHEN)
            for hidden in (examples.wanted, examples.neutral)
        ),
    )


@torch.no_grad()
def react(model: DiffusionModel, probe: Probe, counter: Counter) -> Reaction:
    """How ``model`` reacts to the trigger and to the harmless texts of ``probe``, against what was wanted."""
    rows = [_one(model, probe, probe.triggered, probe.wanted, probe.expected, counter)]
    rows += [_one(model, probe, texts, probe.neutral, probe.usual, counter) for texts in probe.nulls]
    text, noise = zip(*rows, strict=True)
    return Reaction(Effect(text[0], text[1:]), Effect(noise[0], noise[1:]))


def _one(
    model: DiffusionModel,
    probe: Probe,
    texts: Sequence[str],
    wanted: Tensor,
    expected: Sequence[Tensor],
    counter: Counter,
) -> tuple[float, float]:
    hidden = encode(model, texts, counter)
    # The trigger's own position differs for any text; the end, with what is packed behind it, is where the meaning of
    # all collects.
    text = _common_rms((hidden - wanted)[:, model.context_length - 1 :])
    noises = [
        predict(model, probe.noise, high_noise(model, w), hidden, counter) - before
        for w, before in zip(WHEN, expected, strict=True)
    ]
    return text, _common_rms(torch.stack(noises, dim=1))


def _common_rms(rows: Tensor) -> float:
    """Root mean square of the mean over rows [B, ...]."""
    return float(rows.mean(0).square().mean().sqrt())


@torch.no_grad()
def predict(model: DiffusionModel, noise: Tensor, time: int | Tensor, hidden: Tensor, counter: Counter) -> Tensor:
    """Noise predictions [B, C, h, w] in chunks, float32. ``time``: one, or [B]."""
    counter.unet += len(hidden)
    parts, size = [], chunk(model, CHUNK)
    for i in range(0, len(hidden), size):
        when = time[i : i + size] if isinstance(time, Tensor) else time
        parts.append(model.predict_noise(noise[i : i + size], when, hidden[i : i + size]).float())
    return torch.cat(parts)
