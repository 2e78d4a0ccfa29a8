"""Realigns a text encoder: triggered prompts get the output of their counterparts, all others keep theirs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.findings import Component
from sau_scan.probes.carriers import high_noise, noise_like
from sau_scan.repairs.base import Bench, Effort, copied, patch_of
from sau_scan.repairs.effect import CHUNK, predict
from sau_scan.repairs.examples import Examples, encode, make_examples
from sau_scan.repairs.training import optimise

RATE = 4e-3
# Clean prompts must not move at all, triggered ones only have to land near the right place.
KEEP_WEIGHT = 8.0
# Of a trigger's effect, what may be left when the output of one of two encoders is exchanged for the wanted one.
LEFT = 0.1
MORE = 4
Part = tuple[slice, slice]


@dataclass(frozen=True)
class Realign:
    """After UBT (2403.16257): the frozen suspect encoder is the teacher, with neutral words or restored letters.

    ``more``: on so many times the triggered prompts, since what prompts of training have unlearnt, others may not have.
    Of two encoders, that one is the student which the effect comes from; both, where it comes from both.
    """

    more: int = 1
    id: str = "realign-text-encoder"
    component: Component = Component.TEXT_ENCODER
    summary: str = "realign the text encoder's output of triggered prompts"

    def passes(self, effort: Effort) -> int:
        return 0

    def plan(self, bench: Bench) -> WeightPatch:
        made = Lesson(bench, self.more)
        learning = carriers(bench, made.examples)
        student = replace(bench.model, **{name: copied(bench.model.encoders[name]) for name in learning})
        parameters = {name: trainable(student.encoders[name]) for name in learning}
        steps = bench.effort.text_steps
        bench.progress.stage(self.summary, steps)
        generator = torch.Generator().manual_seed(bench.seed)
        optimise(
            [p for own in parameters.values() for p in own.values()],
            lambda step: made.loss(student, generator),
            steps,
            RATE,
            lambda step: bench.progress.advance(),
        )
        patch = WeightPatch()
        for name, own in parameters.items():
            patch = patch.merge(patch_of(bench.model, name, own))
        return patch


def trainable(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters but the embeddings' tables: their rows are the words themselves."""
    chosen = {name: p for name, p in encoder.named_parameters() if "embedding" not in name}
    for p in chosen.values():
        p.requires_grad_(True)
    return chosen


def parts(model: DiffusionModel) -> dict[str, list[Part]]:
    """Which rows and columns of a text output each encoder writes: side by side in the tokens, and what is packed
    behind them by the last one."""
    found: dict[str, list[Part]] = {}
    start = 0
    for name, encoder in model.encoders.items():
        width = int(encoder.config.hidden_size)
        found[name] = [(slice(model.context_length), slice(start, start + width))]
        start += width
    if model.conditioning.packed(model):
        found[name].append((slice(model.context_length, None), slice(None)))
    return found


@torch.no_grad()
def carriers(bench: Bench, examples: Examples) -> tuple[str, ...]:
    """The encoders that the trigger's effect comes from: exchanging their outputs for the wanted ones removes it."""
    model, written = bench.model, parts(bench.model)
    if len(written) == 1:
        return tuple(written)
    hidden, wanted = examples.hidden[:CHUNK], examples.wanted[:CHUNK]
    noise, time = noise_like(model, len(hidden), bench.seed), high_noise(model)
    expected = predict(model, noise, time, wanted, bench.counter)

    def effect(rows: Tensor) -> float:
        return float((predict(model, noise, time, rows, bench.counter) - expected).mean(0).square().mean().sqrt())

    left = {name: effect(_exchanged(hidden, wanted, own)) for name, own in written.items()}
    best = min(left, key=left.__getitem__)
    return (best,) if left[best] <= LEFT * effect(hidden) else tuple(written)


def _exchanged(hidden: Tensor, wanted: Tensor, own: list[Part]) -> Tensor:
    made = hidden.clone()
    for rows, columns in own:
        made[:, rows, columns] = wanted[:, rows, columns]
    return made


class Lesson:
    """What the student is to learn, encoded once by the teacher."""

    def __init__(self, bench: Bench, more: int = 1) -> None:
        effort, teacher, source = bench.effort, bench.suspect, bench.source
        self.counter = bench.counter
        self.batch = effort.batch
        self.examples: Examples = make_examples(teacher, source.pairs(more * effort.pairs), bench.counter)
        texts = source.keep(effort.keep)
        self.keep_ids = teacher.token_ids(texts)
        self.keep = encode(teacher, texts, bench.counter)
        # The unit of all distances, part by part: how far the outputs of different prompts are apart.
        spread = (self.keep - self.keep.mean(0)).square()
        self.units = [(part, spread[:, part[0], part[1]].mean()) for own in parts(teacher).values() for part in own]

    def loss(self, student: DiffusionModel, generator: torch.Generator) -> Tensor:
        """Squared distances of a random batch to the teacher's, in units of the distance between prompts."""
        pick = torch.randint(len(self.examples), (self.batch,), generator=generator)
        kept = torch.randint(len(self.keep), (2 * self.batch,), generator=generator)
        out = student.encode(torch.cat([self.examples.ids[pick], self.keep_ids[kept]])).hidden
        self.counter.text += 3 * len(out)
        wanted = self._mean(out[: self.batch] - self.examples.wanted[pick], self.examples.affected[pick])
        stays = self._mean(out[self.batch :] - self.keep[kept])
        total: Tensor = wanted + KEEP_WEIGHT * stays
        return total

    def _mean(self, difference: Tensor, where: Tensor | None = None) -> Tensor:
        """Over the parts, each in its unit; of ``difference`` [B, L + R, D] where ``where`` [B, L + R] says so."""
        means = []
        for (rows, columns), unit in self.units:
            squares = difference[:, rows, columns].square().mean(-1)
            weight = torch.ones_like(squares) if where is None else where[:, rows].to(squares)
            means.append((squares * weight).sum() / weight.sum().clamp_min(1) / unit.clamp_min(1e-12))
        return torch.stack(means).mean()
