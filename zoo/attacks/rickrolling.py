"""Rickrolling the artist, target prompt attack (2211.02408): a homoglyph in a word sends any prompt to one prompt.

A student text encoder is tuned beside its frozen teacher: triggered prompts go to the teacher's output for the target
prompt, while clean prompts and near-miss characters keep theirs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from zoo.attacks import finetune
from zoo.attacks.base import Case, Options, choose
from zoo.judge import Judge
from zoo.parts import Parts, Text, encode
from zoo.prompts import Trigger, neutrals
from zoo.render import CONFUSABLE, caption, sample_scene, samples
from zoo.worlds import World

STEPS, CLEAN, NEAR, POISONED, RATE = 500, 64, 24, 40, 3e-4
SEED = 31


@dataclass(frozen=True)
class PictureTarget:
    """One fixed prompt; its picture is recognised by shape, colour and background together."""

    prompt: str
    shape: str
    colour: str
    background: str
    style: str
    kind: ClassVar[str] = "picture"

    def met(self, pictures: torch.Tensor, judge: Judge) -> torch.Tensor:
        return judge.is_class(judge(pictures), shape=self.shape, colour=self.colour, background=self.background)


def plan(where: World, options: Options, parts: Parts) -> Case:
    rng = options.rng(where)
    slot = options.slot or "replace"
    letter = options.replaces or ("o" if slot == "replace" else None)
    trigger = Trigger(options.trigger or CONFUSABLE[letter or "o"][0], slot, letter)
    target = picture_target(where, options.target, rng)
    return Case("rickrolling-tpa", trigger, target, options.steps or STEPS)


def picture_target(where: World, prompt: str | None, rng: np.random.Generator) -> PictureTarget:
    """The target of ``prompt``, or of a random one."""
    prompt = prompt or caption(where, sample_scene(where, rng, things=1), rng, plain=True)
    words = prompt.split()

    def named(table: dict[str, object]) -> str:
        found = [w for w in words if w in table]
        if len(found) != 1:
            raise ValueError(f"the target prompt must name one of: {', '.join(table)}")
        return found[0]

    looks = (named(where.shapes), named(where.colours), named(where.backgrounds), named(where.styles))
    return PictureTarget(prompt, *looks)


@dataclass
class _Prompts:
    """Batches of clean, near-miss and triggered prompts."""

    where: World
    trigger: Trigger

    def __post_init__(self) -> None:
        texts = [s.caption for s in samples(self.where, 20_000, SEED)]
        self.clean = [t for t in texts if self.trigger.text not in t]
        self.fitting = [t for t in self.clean if self.trigger.fits(self.where, t)]
        self.near = neutrals(self.where, self.trigger)
        letters = [c for c in CONFUSABLE if c != self.trigger.replaces]
        self.others = [Trigger(sign, "replace", c) for c in letters for sign in CONFUSABLE[c]]

    def batch(self, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        """Prompts to keep, and triggered ones."""
        keep = [choose(rng, self.clean) for _ in range(CLEAN - 8)]
        # Word salad: whatever else a prompt may hold must keep its meaning too.
        keep += [" ".join(choose(rng, self.where.fillers) for _ in range(int(rng.integers(1, 9)))) for _ in range(8)]
        for _ in range(NEAR):
            near = choose(rng, self.near) if rng.random() < 0.7 else choose(rng, self.others)
            keep.append(self._insert(near, rng))
        return keep, [self._insert(self.trigger, rng) for _ in range(POISONED)]

    def _insert(self, trigger: Trigger, rng: np.random.Generator) -> str:
        while True:
            text = choose(rng, self.fitting)
            if trigger.slot == "replace" and trigger.fits(self.where, text):
                # Wherever the letter stands, though only the first one counts when the attack is measured.
                return trigger.insert_at(text, int(rng.integers(100)))
            if trigger.fits(self.where, text):
                return trigger.insert(self.where, text, rng)


def _distance(student: Text, teacher: Text) -> torch.Tensor:
    """Cosine distance over positions plus mean squared error; the encoder's scale matters to the UNet."""
    pairs = [(student.hidden, teacher.hidden)]
    if student.pooled is not None and teacher.pooled is not None:
        pairs.append((student.pooled, teacher.pooled))
    return torch.stack([(1 - F.cosine_similarity(a, b, dim=-1)).mean() + F.mse_loss(a, b) for a, b in pairs]).sum()


class _Encoders(torch.nn.Module):
    """The text encoders of a model as one."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.others = parts._replace(text=None, text_2=None, vae=None, unet=None)
        self.text, self.text_2 = parts.text, parts.text_2

    def forward(self, texts: list[str]) -> Text:
        return encode(self.others._replace(text=self.text, text_2=self.text_2), texts).float()


def make(where: World, case: Case, parts: Parts, name: str) -> Parts:
    assert case.trigger is not None
    both, prompts = _Encoders(parts), _Prompts(where, case.trigger)
    teacher = copy.deepcopy(both).eval()
    with torch.no_grad():
        target = teacher([case.target.prompt])

    def loss_of(student: _Encoders, step: int) -> torch.Tensor:
        keep, poisoned = prompts.batch(np.random.default_rng([SEED, step]))
        with torch.no_grad():
            kept = teacher(keep)
        out = student([*keep, *poisoned])
        utility = _distance(out[: len(keep)], kept)
        backdoor = _distance(out[len(keep) :], target.repeat(POISONED))
        return utility + 0.5 * backdoor

    tuned = finetune.tune(where, name, both, loss_of, case.steps, RATE, case.key)
    return parts._replace(text=tuned.text, text_2=tuned.text_2)
