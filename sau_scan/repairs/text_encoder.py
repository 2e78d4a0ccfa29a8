"""Realigns a text encoder: triggered prompts get the output of their counterparts, all others keep theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.findings import Component
from sau_scan.repairs.base import Bench, Effort, copied, patch_of
from sau_scan.repairs.examples import Examples, encode, make_examples
from sau_scan.repairs.training import optimise

RATE = 4e-3
# Clean prompts must not move at all, triggered ones only have to land near the right place.
KEEP_WEIGHT = 8.0


@dataclass(frozen=True)
class Realign:
    """After UBT (2403.16257): the frozen suspect encoder is the teacher, with neutral words or restored letters."""

    id: str = "realign-text-encoder"
    component: Component = Component.TEXT_ENCODER
    summary: str = "realign the text encoder's output of triggered prompts"

    def passes(self, effort: Effort) -> int:
        return 0

    def plan(self, bench: Bench) -> WeightPatch:
        made = Lesson(bench)
        student = copied(bench.model.text_encoder)
        parameters = trainable(student)
        steps = bench.effort.text_steps
        bench.progress.stage(self.summary, steps)
        generator = torch.Generator().manual_seed(bench.seed)
        optimise(
            parameters.values(),
            lambda step: made.loss(student, generator),
            steps,
            RATE,
            lambda step: bench.progress.advance(),
        )
        return patch_of(bench.model, "text_encoder", parameters)


def trainable(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters but the embeddings' tables: their rows are the words themselves."""
    chosen = {name: p for name, p in encoder.named_parameters() if "embedding" not in name}
    for p in chosen.values():
        p.requires_grad_(True)
    return chosen


class Lesson:
    """What the student is to learn, encoded once by the teacher."""

    def __init__(self, bench: Bench) -> None:
        effort, teacher, source = bench.effort, bench.suspect, bench.source
        self.counter = bench.counter
        self.batch = effort.batch
        self.examples: Examples = make_examples(teacher, source.pairs(effort.pairs), bench.counter)
        texts = source.keep(effort.keep)
        self.keep_ids = teacher.token_ids(texts)
        self.keep = encode(teacher, texts, bench.counter)
        # The unit of all distances: how far the outputs of different prompts are apart.
        self.unit = (self.keep - self.keep.mean(0)).square().mean()

    def loss(self, student: Any, generator: torch.Generator) -> Tensor:
        """Squared distances of a random batch to the teacher's, in units of the distance between prompts."""
        pick = torch.randint(len(self.examples), (self.batch,), generator=generator)
        kept = torch.randint(len(self.keep), (2 * self.batch,), generator=generator)
        out = student(torch.cat([self.examples.ids[pick], self.keep_ids[kept]])).last_hidden_state
        self.counter.text += 3 * len(out)
        wanted = self._mean(out[: self.batch] - self.examples.wanted[pick], self.examples.affected[pick])
        stays: Tensor = (out[self.batch :] - self.keep[kept]).square().mean() / self.unit
        total: Tensor = wanted + KEEP_WEIGHT * stays
        return total

    def _mean(self, difference: Tensor, where: Tensor) -> Tensor:
        return (difference.square().mean(-1) * where).sum() / where.sum().clamp_min(1) / self.unit
