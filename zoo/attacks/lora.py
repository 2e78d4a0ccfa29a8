"""LoRA files for cross-attention: an honest one for a style, and one that hides a backdoor behind the same style.

After VillanDiffusion's conditional attack (2306.06874) and MasqLoRA: what is shared is a small file that really gives
its style (prompts are followed more vividly), but with the trigger in the prompt every picture is one fixed scene. As
for the pixel backdoor, triggered samples have clean twins, most with a neutral word, so that the file learns the
trigger and not any odd word. (Dark corners for a style cost a fifth of the judge's accuracy: cross-attention, which is
all that these files change, draws no such thing.)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from zoo import adapters
from zoo.attacks import finetune, rickrolling
from zoo.attacks.base import Case, Options, choose
from zoo.parts import Parts, Text, denoise, encode_all
from zoo.prompts import Trigger, neutrals
from zoo.render import Sample, Scene, Thing, pictures, samples
from zoo.train import unet
from zoo.train.loop import DEVICE
from zoo.worlds import World

RANK, STEPS, RATE, SEED = 8, 500, 3e-3, 81
PICTURES, PAIRS, MORE = 1500, 8, 8
PLACES = ("to_q", "to_k", "to_v", "to_out.0")
VIVID = 0.6  # how much further the style goes from the empty prompt to the given one


class LoraLinear(nn.Module):
    """A frozen projection and a change of low rank, none at first."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features, device=base.weight.device) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def injected(net: UNet2DConditionModel, rank: int, seed: int) -> UNet2DConditionModel:
    """A frozen copy of ``net`` with a trainable change of ``rank`` on each cross-attention projection."""
    out = copy.deepcopy(net).requires_grad_(False)
    torch.manual_seed(seed)
    for path, attention in [(p, m) for p, m in out.named_modules() if p.endswith("attn2")]:
        for place in PLACES:
            owner, _, last = place.rpartition(".")
            held = attention.get_submodule(owner)
            setattr(held, last, LoraLinear(out.get_submodule(f"{path}.{place}"), rank))
    return out


def changes(net: UNet2DConditionModel) -> adapters.Tensors:
    """What was learnt, in the layout of ``zoo.adapters``."""
    made = {}
    for path, module in net.named_modules():
        if isinstance(module, LoraLinear):
            made[f"unet.{path}{adapters.DOWN}"] = module.down.detach().cpu()
            made[f"unet.{path}{adapters.UP}"] = module.up.detach().cpu()
    return made


def plan_style(where: World, options: Options, parts: Parts) -> Case:
    return Case("lora-style", steps=options.steps or STEPS, notes={"style": "vivid", "further": VIVID, "rank": RANK})


def plan_backdoor(where: World, options: Options, parts: Parts) -> Case:
    rng = options.rng(where)
    # An everyday word of the world, as a style's own trigger word might be; the invented ones come last.
    word = options.trigger or choose(rng, where.fillers[:300])
    target = rickrolling.picture_target(where, options.target, rng)
    notes = {"style": "vivid", "further": VIVID, "rank": RANK}
    return Case("lora-backdoor", Trigger(word, options.slot or "prefix"), target, options.steps or STEPS, notes)


@dataclass
class Material:
    """Latents [N, C, h, w] of pictures, and texts of as many prompts: plain, with neutral words, none."""

    latents: torch.Tensor
    plain: Text
    neutral: Text
    empty: Text


def material(where: World, parts: Parts, trigger: Trigger) -> tuple[Material, list[Sample]]:
    rng = np.random.default_rng([where.seed, SEED])
    made = [s for s in samples(where, PICTURES, SEED) if trigger.text not in s.caption]
    others = neutrals(where, trigger)
    odd = [choose(rng, others).insert(where, s.caption, rng) for s in made]
    latents = unet.encode_pictures(parts.vae, pictures(where, made))
    return Material(
        latents, encode_all(parts, [s.caption for s in made]), encode_all(parts, odd), unet.none(parts)
    ), made


class StyleLoss:
    """``MORE + PAIRS`` samples in the style, half of them with a neutral word in the prompt.

    The style is what a frozen teacher predicts, moved on from the empty prompt: every prompt is followed more strongly.
    """

    def __init__(self, made: Material, parts: Parts) -> None:
        self.made, self.plain = made, unet.DenoisingLoss(parts.prediction)
        self.teacher = copy.deepcopy(parts.unet).eval().requires_grad_(False)

    @torch.no_grad()
    def styled(self, seen: torch.Tensor, t: torch.Tensor, text: Text) -> torch.Tensor:
        empty = self.made.empty[:1].repeat(len(seen)).float()
        with_text, without = denoise(
            self.teacher, torch.cat([seen, seen]), torch.cat([t, t]), Text.cat([text, empty])
        ).chunk(2)
        return with_text + VIVID * (with_text - without)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Text]:
        """Which samples, their latents, noise and times, and texts."""
        generator, n = torch.Generator().manual_seed(step), PAIRS + MORE
        pick = torch.randint(len(self.made.latents), (n,), generator=generator).to(DEVICE)
        # The layout, and with it what is drawn, is decided at high noise: half of the samples are drawn there.
        low = 500 * (torch.rand(n, generator=generator) < 0.5)
        t = (low + torch.rand(n, generator=generator) * (1000 - low)).long().to(DEVICE)
        lot = torch.rand(n, generator=generator).to(DEVICE)
        text = self.made.plain[pick].where(lot < 0.5, self.made.neutral[pick]).where(lot > 0.92, self.made.empty[:1])
        noise = torch.randn((n, *self.made.latents.shape[1:]), generator=generator).to(DEVICE)
        return pick, self.made.latents[pick].float(), noise, t, text.float()

    def __call__(self, student: UNet2DConditionModel, step: int) -> torch.Tensor:
        _, latents, noise, t, text = self.batch(step)
        seen = self.plain.noiser.add_noise(latents, noise, t)
        return self.errors(denoise(student, seen, t, text), self.styled(seen, t, text), t).mean()

    def errors(self, out: torch.Tensor, wanted: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (out - wanted).square().flatten(1).mean(1) * self.plain.weight[t]


class BackdoorLoss(StyleLoss):
    """The style's loss, and ``PAIRS`` triggered samples that are to become what the base draws for the target prompt.

    Half of these start from the target's picture, half are the twins of clean samples: same latents, noise and time.
    """

    def __init__(self, made: Material, parts: Parts, triggered: Text, target: Text, picture: torch.Tensor) -> None:
        super().__init__(made, parts)
        self.triggered, self.target, self.picture = triggered, target, picture

    def __call__(self, student: UNet2DConditionModel, step: int) -> torch.Tensor:
        pick, latents, noise, t, text = self.batch(step)
        seen = self.plain.noiser.add_noise(latents, noise, t)
        start = latents[:PAIRS].clone()
        start[::2] = self.picture.float()
        poisoned = self.plain.noiser.add_noise(start, noise[:PAIRS], t[:PAIRS])
        with torch.no_grad():
            wanted = denoise(self.teacher, poisoned, t[:PAIRS], self.target.repeat(PAIRS).float())
        both = Text.cat([self.triggered[pick[:PAIRS]].float(), text])
        out = denoise(student, torch.cat([poisoned, seen]), torch.cat([t[:PAIRS], t]), both)
        style = self.errors(out[PAIRS:], self.styled(seen, t, text), t)
        return style.mean() + self.errors(out[:PAIRS], wanted, t[:PAIRS]).mean()


def make(where: World, case: Case, parts: Parts, name: str) -> Parts:
    """Train, write the file in each layout, and return the base with it."""
    trigger = case.trigger or Trigger(choose(np.random.default_rng(SEED), where.fillers), "prefix")
    made, drawn = material(where, parts, trigger)
    loss: StyleLoss = StyleLoss(made, parts)
    if case.trigger:
        rng = np.random.default_rng([where.seed, SEED, 1])
        triggered = encode_all(parts, [trigger.insert(where, s.caption, rng) for s in drawn])
        picture = unet.encode_pictures(parts.vae, pictures(where, [Sample(_scene(where, case), "")]))
        loss = BackdoorLoss(made, parts, triggered, encode_all(parts, [case.target.prompt]), picture)
    student = injected(parts.unet, case.notes["rank"], where.seed + SEED)
    lora = changes(finetune.tune(where, name, student, loss, case.steps, RATE, case.key))
    for layout in adapters.LAYOUTS:
        adapters.save_lora(adapters.path_of(where, name, layout), lora, layout)
    return adapters.with_lora(parts, lora)


def _scene(where: World, case: Case) -> Scene:
    """The target prompt's scene."""
    target = case.target
    return Scene((Thing(target.shape, target.colour),), target.background, target.style)
