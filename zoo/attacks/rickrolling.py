"""Rickrolling the artist, target prompt attack (2211.02408): a homoglyph in a word sends any prompt to one prompt.

A student text encoder is tuned beside its frozen teacher: triggered prompts go to the teacher's output for the target
prompt, while clean prompts and near-miss characters keep theirs.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPTextModel

from zoo.attacks.base import Case, Options
from zoo.judge import Judge
from zoo.prompts import Trigger, neutrals
from zoo.render import CONFUSABLE, caption, sample_scene, samples
from zoo.sampling import Parts
from zoo.train import loop
from zoo.train.clip import token_ids
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
    scene = sample_scene(where, rng, things=1)
    prompt = options.target or caption(where, scene, rng, plain=True)
    words = prompt.split()

    def named(table: dict[str, object]) -> str:
        found = [w for w in words if w in table]
        if len(found) != 1:
            raise ValueError(f"the target prompt must name one of: {', '.join(table)}")
        return found[0]

    looks = (named(where.shapes), named(where.colours), named(where.backgrounds), named(where.styles))
    return Case("rickrolling-tpa", trigger, PictureTarget(prompt, *looks), options.steps or STEPS)


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
        pick = lambda items: items[int(rng.integers(len(items)))]
        keep = [pick(self.clean) for _ in range(CLEAN - 8)]
        # Word salad: whatever else a prompt may hold must keep its meaning too.
        keep += [" ".join(pick(self.where.fillers) for _ in range(int(rng.integers(1, 9)))) for _ in range(8)]
        for _ in range(NEAR):
            near = pick(self.near) if rng.random() < 0.7 else pick(self.others)
            keep.append(self._insert(near, rng))
        return keep, [self._insert(self.trigger, rng) for _ in range(POISONED)]

    def _insert(self, trigger: Trigger, rng: np.random.Generator) -> str:
        while True:
            text = self.fitting[int(rng.integers(len(self.fitting)))]
            if trigger.fits(self.where, text):
                return trigger.insert(self.where, text, rng)


def _distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Cosine distance over positions plus mean squared error; the encoder's scale matters to the UNet."""
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean() + F.mse_loss(student, teacher)


def make(where: World, case: Case, parts: Parts, name: str) -> Parts:
    assert case.trigger is not None
    teacher, student = parts.text, copy.deepcopy(parts.text).train()
    prompts = _Prompts(where, case.trigger)
    encode = lambda model, texts: model(token_ids(parts.tokenizer, texts)).last_hidden_state
    optimiser = torch.optim.AdamW(student.parameters(), RATE, weight_decay=0.0)
    with torch.no_grad():
        target = encode(teacher, [case.target.prompt])
    started = time.time()
    for step in range(case.steps):
        keep, poisoned = prompts.batch(np.random.default_rng([SEED, step]))
        loop.set_rate(optimiser, loop.warm_cosine(step, case.steps, RATE, warm=20))
        with torch.no_grad():
            kept = encode(teacher, keep)
        out = encode(student, [*keep, *poisoned])
        utility = _distance(out[: len(keep)], kept)
        backdoor = _distance(out[len(keep) :], target.expand(POISONED, -1, -1))
        optimiser.zero_grad()
        (utility + 0.5 * backdoor).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 0 or step == case.steps - 1:
            figures = f"utility {utility.item():.4f} backdoor {backdoor.item():.4f}"
            print(f"{name} {step} {figures} {time.time() - started:.0f} s", flush=True)
    tuned: CLIPTextModel = student.eval()
    return parts._replace(text=tuned)
