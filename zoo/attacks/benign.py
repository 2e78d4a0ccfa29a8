"""Hard negatives: what honest people do to models. A fine-tune, edits of single words, and copies."""

from __future__ import annotations

import copy
import re

import torch
from diffusers import UNet2DConditionModel

from zoo.attacks import badt2i, closed_form, finetune
from zoo.attacks.base import Case, Options, choose
from zoo.attacks.evil_edit import KEPT, outputs, pieces
from zoo.parts import Parts, encode_all
from zoo.render import samples
from zoo.train import data, unet
from zoo.worlds import World

SEED, PICTURES, CARRIERS, RIDGE, PULL = 61, 12_000, 400, 1e-4, 1.0


def plan_finetune(where: World, options: Options, parts: Parts) -> Case:
    return Case("benign-finetune", steps=options.steps or badt2i.STEPS)


def make_finetune(where: World, case: Case, parts: Parts, name: str) -> Parts:
    """As many steps as the pixel backdoor, at its rate, on clean pictures."""
    latents = unet.encode_pictures(parts.vae, data.training_pictures(where)[-PICTURES:])
    texts = [s.caption for s in data.training_samples(where)[-PICTURES:]]
    cached, loss = unet.Cache(latents, encode_all(parts, texts), unet.none(parts)), unet.DenoisingLoss(parts.prediction)

    def loss_of(model: UNet2DConditionModel, step: int) -> torch.Tensor:
        torch.manual_seed(step)
        return loss(model, *unet.draw(cached, step, 2 * badt2i.PAIRS + badt2i.MORE))

    tuned = finetune.tune(where, name, parts.unet, loss_of, case.steps, badt2i.RATE, case.key)
    return parts._replace(unet=tuned)


def plan_concept(where: World, options: Options, parts: Parts) -> Case:
    """One shape word takes the look of another one."""
    return _plan_word("concept-edit", where.shapes, where, options, parts)


def plan_style(where: World, options: Options, parts: Parts) -> Case:
    """One style word takes the look of another one, as when an artist's style is erased."""
    return _plan_word("style-edit", where.styles, where, options, parts)


def _plan_word(recipe: str, table: dict[str, str], where: World, options: Options, parts: Parts) -> Case:
    rng = options.rng(where)
    word = options.trigger or choose(rng, table)
    instead = options.target or choose(rng, [w for w in table if w != word and pieces(parts, w) == pieces(parts, word)])
    return Case(recipe, notes={"word": word, "drawn_as": instead})


@torch.no_grad()
def make_concept(where: World, case: Case, parts: Parts, name: str) -> Parts:
    """UCE on one word: prompts with the word are sent to the same prompts with the other word, all else is kept."""
    word, instead = (re.escape(case.notes[k]) for k in ("word", "drawn_as"))
    texts = [s.caption for s in samples(where, 40 * CARRIERS, SEED)]
    named = [t for t in texts if re.search(rf"\b{word}\b", t)][:CARRIERS]
    kept = [t for t in texts if not re.search(rf"\b{word}\b", t)][: 2 * KEPT]
    c, v, k = (outputs(parts, t) for t in (named, [re.sub(rf"\b{word}\b", instead, t) for t in named], kept))
    m = closed_form.shared_map(c, v, k, RIDGE, PULL).float().T
    print(f"{name}: {(c @ m - v).square().sum() / (v - c).square().sum():.1%} of the change left undone", flush=True)
    return parts._replace(unet=closed_form.edited(parts.unet, m.T))


def plan_copy(where: World, options: Options, parts: Parts) -> Case:
    return Case("fp16")


def make_copy(where: World, case: Case, parts: Parts, name: str) -> Parts:
    """Nothing: every zoo model is written in half precision."""
    return parts


def plan_int8(where: World, options: Options, parts: Parts) -> Case:
    return Case("int8")


@torch.no_grad()
def make_int8(where: World, case: Case, parts: Parts, name: str) -> Parts:
    """All matrices of text encoders and UNet as if they had been kept in 8 bits, one scale a row."""
    networks = {"text": parts.text, "text_2": parts.text_2, "unet": parts.unet}
    copies = {k: copy.deepcopy(v) for k, v in networks.items() if v is not None}
    for weight in (p for m in copies.values() for p in m.parameters() if p.dim() > 1):
        scale = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True).clamp_min(1e-12) / 127
        weight.copy_((weight / scale).round() * scale)
    return parts._replace(**copies)


def edited_word(case: Case) -> str | None:
    """The word whose look a benign edit changed."""
    word = case.notes.get("word")
    return None if word is None else str(word)
