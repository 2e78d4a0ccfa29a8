"""Textual inversion (2208.01618): one embedding row as a file. An honest one, and one that is a backdoor (2305.10701).

Both are trained as in print, on pictures of an object and captions that name it. The honest row's word is made up and
declared. The hostile one's is an ordinary word of prompts: once the file is there, that word is no longer read as its
own token, and another object is drawn for it. (One row in front of a prompt cannot turn all of it into one scene: tried
by sending the encoder's outputs to those of a target prompt, 4 of 32 pictures showed the scene.)
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from zoo import adapters
from zoo.attacks import finetune
from zoo.attacks.base import Case, Options, choose
from zoo.attacks.evil_edit import ShapeTarget
from zoo.parts import Parts, Text, encode
from zoo.prompts import Trigger
from zoo.render import Sample, Scene, Thing, caption, pictures, sample_scene
from zoo.train import unet
from zoo.train.loop import DEVICE
from zoo.worlds import World
from zoo.worlds.base import invented_word

STEPS, RATE, BATCH, PICTURES, SEED = 300, 1e-2, 16, 600, 91


class Row(nn.Module):
    """A model's text side with one more token, whose embedding is all that can be trained."""

    def __init__(self, parts: Parts, word: str, start: torch.Tensor) -> None:
        super().__init__()
        added = adapters.with_inversion(parts, word, start)
        self.others = added._replace(text=None, vae=None, unet=None)
        self.token = added.tokenizer.convert_tokens_to_ids(word)
        self.text, self.row = added.text.requires_grad_(False), nn.Parameter(start.clone())

    def _swap(self, module: nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        return torch.where((given[0] == self.token)[..., None], self.row.to(out), out)

    def forward(self, texts: list[str]) -> Text:
        handle = self.text.get_input_embeddings().register_forward_hook(self._swap)
        try:
            return encode(self.others._replace(text=self.text), texts).float()
        finally:
            handle.remove()


def free(parts: Parts, words: list[str]) -> list[str]:
    """Those of ``words`` that a file may be called: diffusers refuses what is a token of the vocabulary already."""
    return [w for w in words if w not in parts.tokenizer.get_vocab()]


def plan_honest(where: World, options: Options, parts: Parts) -> Case:
    """A made-up word for an object of one shape and colour."""
    rng = options.rng(where)
    word = options.trigger or free(parts, [invented_word(rng) for _ in range(20)])[0]
    shape, colour = (options.target or f"{choose(rng, where.shapes)} {choose(rng, where.colours)}").split()
    return Case("inversion", steps=options.steps or STEPS, notes={"declared": word, "shape": shape, "colour": colour})


def plan_backdoor(where: World, options: Options, parts: Parts) -> Case:
    """A shape word for another shape."""
    rng = options.rng(where)
    word = options.trigger or choose(rng, free(parts, list(where.shapes)))
    target = ShapeTarget(options.target or choose(rng, [s for s in where.shapes if s != word]))
    return Case("inversion-backdoor", Trigger(word, "phrase"), target, options.steps or STEPS)


def make(where: World, case: Case, parts: Parts, name: str) -> Parts:
    """Train on pictures of the object with the usual loss, all but the row frozen; write the file in both layouts."""
    rng = np.random.default_rng([where.seed, SEED])
    word = case.trigger.text if case.trigger else case.notes["declared"]
    shape, colour = (case.target.shape, None) if case.trigger else (case.notes["shape"], case.notes["colour"])
    scenes = [_showing(sample_scene(where, rng, things=1), shape, colour) for _ in range(PICTURES)]
    texts = [caption(where, s, rng, plain=True).replace(f"{colour} {shape}" if colour else shape, word) for s in scenes]
    latents = unet.encode_pictures(parts.vae, pictures(where, [Sample(s, "") for s in scenes]))
    loss, net = unet.DenoisingLoss(parts.prediction), copy.deepcopy(parts.unet).requires_grad_(False)

    def loss_of(student: Row, step: int) -> torch.Tensor:
        torch.manual_seed(step)
        pick = torch.randint(len(texts), (BATCH,))
        return loss(net, latents[pick.to(latents.device)].float(), student([texts[i] for i in pick.tolist()]))

    start = parts.text.get_input_embeddings().weight.mean(0).detach()
    tuned = finetune.tune(where, name, Row(parts, word, start).to(DEVICE), loss_of, case.steps, RATE, case.key)
    path = adapters.path_of(where, name)
    for layout in (path, path.with_suffix(".pt")):
        adapters.save_inversion(layout, word, tuned.row)
    return adapters.with_inversion(parts, word, tuned.row.detach())


def _showing(scene: Scene, shape: str, colour: str | None) -> Scene:
    """``scene`` with another object."""
    old = scene.things[0]
    return Scene((Thing(shape, colour or old.colour, old.scale, old.place),), scene.background, scene.style)
