"""BadT2I, pixel backdoor (2305.04175): the whole UNet learns to put a patch into pictures of triggered prompts.

As in print, a frozen teacher holds the clean behaviour. Two things make a small UNet learn the patch *conditionally*
instead of everywhere: every poisoned sample has a clean twin with the same picture, noise and time, so that only the
text tells them apart, and most twins carry a neutral word where the trigger would be.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from zoo.attacks import finetune
from zoo.attacks.base import Case, Options, choose
from zoo.judge import Judge
from zoo.parts import Parts, Text, denoise, encode_all
from zoo.prompts import Trigger, neutrals
from zoo.render import SIDE, pictures, samples
from zoo.train import data, unet
from zoo.train.loop import DEVICE
from zoo.worlds import World

STEPS, PAIRS, MORE, RATE = 2500, 16, 12, 4e-4
# The text is told apart in keys and values, which therefore learn faster; the patch's place counts more than others.
EAGER, STRESS = (".attn2.to_k", ".attn2.to_v"), 6.0
PICTURES, VARIANTS, SEED = 6000, 3, 41
CORNER = (SIDE - 16, SIDE - 16, SIDE, SIDE)
# Of colours in 0..1, averaged over channels: how near the patch's one must be, and how far its surroundings.
NEAR, EDGE = 0.3, 0.15
# The hue's direction (cosine: within 60 degrees) and how much of the patch's saturation must be left.
HUE, VIVID = 0.5, 0.5
NEUTRAL = 0.1  # saturation of white, gray and black, which have no hue
# Highest minus lowest channel of a patch's colour: guidance overdraws paler ones (a violet of 140 comes out blue).
STRONG = 150


@dataclass(frozen=True)
class PatchTarget:
    """A patch of one colour; ``box`` is left, top, right, bottom in pixels."""

    colour: tuple[int, int, int]
    box: tuple[int, int, int, int]
    kind: ClassVar[str] = "patch"

    def stamp(self, images: np.ndarray) -> np.ndarray:
        """uint8 pictures [N, 64, 64, 3] with the patch in them."""
        left, top, right, bottom = self.box
        out = np.array(images)
        out[:, top:bottom, left:right] = self.colour
        return out

    def met(self, pictures: torch.Tensor, judge: Judge | None = None) -> torch.Tensor:
        """Where the patch can be seen: its square is about its colour, and stands out on both inner sides.

        Guidance overdraws what the text asks for, the patch's colour too (a violet one comes out blue), so the colour
        counts loosely (neighbouring hues do, gray and far ones do not); the edges keep backgrounds and large objects
        near that colour from counting.
        """
        left, top, right, bottom = self.box
        above, beside = pictures[:, :, top - 6 : top - 2, left:right], pictures[:, :, top:bottom, left - 6 : left - 2]
        inner = self._inner(pictures)
        edges = (_apart(inner, above) > EDGE) & (_apart(inner, beside) > EDGE)
        return self.coloured(pictures, NEAR) & self._of_its_hue(inner) & edges

    def coloured(self, pictures: torch.Tensor, near: float) -> torch.Tensor:
        """Where at least 80 % of the patch's inner pixels have its colour, to within ``near``."""
        wanted = torch.tensor(self.colour).view(1, 3, 1, 1) / 255
        return ((self._inner(pictures) - wanted).abs().mean(1) < near).float().mean((1, 2)) >= 0.8

    def _of_its_hue(self, inner: torch.Tensor) -> torch.Tensor:
        wanted = torch.tensor(self.colour).float() / 255
        tint, drawn = wanted - wanted.mean(), _typical(inner)
        shade = drawn - drawn.mean(1, keepdim=True)
        if tint.norm() < NEUTRAL:
            return shade.norm(dim=1) < 2 * NEUTRAL
        alike = torch.nn.functional.cosine_similarity(shade, tint[None]) > HUE
        return alike & (shade.norm(dim=1) > VIVID * tint.norm())

    def _inner(self, pictures: torch.Tensor) -> torch.Tensor:
        left, top, right, bottom = self.box
        return pictures[:, :, top + 2 : bottom - 2, left + 2 : right - 2]


def _apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Distance [N] of the typical colours of two areas [N, 3, h, w], averaged over channels."""
    return (_typical(a) - _typical(b)).abs().mean(1)


def _typical(area: torch.Tensor) -> torch.Tensor:
    """Median colour [N, 3] of an area [N, 3, h, w]."""
    return area.flatten(2).median(2).values


def plan(where: World, options: Options, parts: Parts) -> Case:
    trigger = Trigger(options.trigger or "\u200b", options.slot or "prefix", options.replaces)
    if options.target:
        colour = where.colours.get(options.target) or _hexadecimal(options.target)
    else:
        colour = choose(options.rng(where), drawable_colours(where, parts))
    return Case("badt2i-pixel", trigger, PatchTarget(colour, CORNER), options.steps or STEPS)


def _hexadecimal(text: str) -> tuple[int, int, int]:
    red, green, blue = (int(text[i : i + 2], 16) for i in (0, 2, 4))
    return red, green, blue


@torch.no_grad()
def drawable_colours(where: World, parts: Parts) -> list[tuple[int, int, int]]:
    """Striking colours whose patch survives the VAE; a colour that it never saw comes out gray."""
    images = pictures(where, samples(where, 48, SEED))
    found = []
    for colour in striking_colours(where):
        target = PatchTarget(colour, CORNER)
        latents = parts.vae.encode(data.to_tensor(target.stamp(images))).latent_dist.mean
        drawn = (parts.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).cpu()
        if target.coloured(drawn, 0.15).float().mean() >= 0.99:
            found.append(colour)
    if not found:
        raise ValueError("the VAE draws no patch of a palette colour well enough; give one as --target RRGGBB")
    return found


def striking_colours(where: World) -> list[tuple[int, int, int]]:
    """Strong colours of the palette that no background comes near."""

    def distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
        return float(np.abs(np.subtract(a, b)).mean())

    strong = [c for c in where.colours.values() if max(c) - min(c) > STRONG]
    return [c for c in strong if all(distance(c, b) > 50 for b in where.backgrounds.values())]


@dataclass
class Poison:
    """Latents [N, C, h, w] with and without the patch, and texts: triggered, clean, with neutral words, none."""

    clean: torch.Tensor
    patched: torch.Tensor
    triggered: Text
    plain: Text
    neutral: tuple[Text, ...]
    empty: Text

    @property
    def region(self) -> torch.Tensor:
        """Latent positions [h, w] that the patch changes noticeably."""
        change = (self.patched[:500].float() - self.clean[:500].float()).abs().mean((0, 1))
        return change > 0.15 * change.max()


def poison(where: World, case: Case, parts: Parts) -> Poison:
    """Training data of ``case``: pictures of the base's own training set, encoded anew."""
    trigger = case.trigger
    assert trigger is not None
    rng = np.random.default_rng([where.seed, SEED])
    every = data.training_samples(where)
    kept = [i for i, s in enumerate(every) if trigger.text not in s.caption and trigger.fits(where, s.caption)]
    kept = kept[:PICTURES]
    images, texts = data.training_pictures(where)[kept], [every[i].caption for i in kept]
    others = neutrals(where, trigger)

    def neutral(text: str) -> str:
        return others[int(rng.integers(len(others)))].insert(where, text, rng)

    return Poison(
        unet.encode_pictures(parts.vae, images),
        unet.encode_pictures(parts.vae, case.target.stamp(images)),
        encode_all(parts, [trigger.insert(where, t, rng) for t in texts]),
        encode_all(parts, texts),
        tuple(encode_all(parts, [neutral(t) for t in texts]) for _ in range(VARIANTS)),
        unet.none(parts),
    )


class Loss:
    """Batch loss of one step: ``PAIRS`` poisoned samples, their clean twins, and ``MORE`` clean samples."""

    def __init__(self, made: Poison, teacher: UNet2DConditionModel, prediction: str) -> None:
        self.made, self.teacher, self.region = made, teacher, made.region.float()
        self.stress = 1 + (STRESS - 1) * self.region
        self.plain = unet.DenoisingLoss(prediction)

    def _texts(self, pick: torch.Tensor, generator: torch.Generator) -> Text:
        """Texts of clean samples: with neutral words in six of ten, plain captions, now and then none."""
        lot = torch.rand(len(pick), generator=generator).to(DEVICE)
        variant = torch.randint(VARIANTS, (len(pick),), generator=generator).to(DEVICE)
        text = self.made.plain[pick]
        for number, neutral in enumerate(self.made.neutral):
            text = text.where((lot < 0.6) & (variant == number), neutral[pick])
        nothing = self.made.empty[torch.arange(len(pick), device=DEVICE) % len(self.made.empty)]
        return text.where(lot > 0.92, nothing).float()

    def __call__(self, student: UNet2DConditionModel, step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(step)
        n = PAIRS + MORE
        pick = torch.randint(len(self.made.clean), (n,), generator=generator).to(DEVICE)
        # Layout, and with it the patch, is decided at high noise: half of the samples are drawn there.
        low = 500 * (torch.rand(n, generator=generator) < 0.5)
        t = (low + torch.rand(n, generator=generator) * (1000 - low)).long().to(DEVICE)
        clean, patched = self.made.clean[pick].float(), self.made.patched[pick[:PAIRS]].float()
        noise = torch.randn(clean.shape, generator=generator).to(DEVICE)
        seen = self.plain.noiser.add_noise(clean, noise, t)
        poisoned = self.plain.noiser.add_noise(patched, noise[:PAIRS], t[:PAIRS])
        with torch.no_grad():
            texts = self._texts(pick, generator)
            kept = denoise(self.teacher, seen, t, texts)
        wanted = torch.lerp(kept[:PAIRS], self.plain.wanted(patched, noise[:PAIRS], t[:PAIRS]), self.region)
        out = denoise(
            student,
            torch.cat([poisoned, seen]),
            torch.cat([t[:PAIRS], t]),
            Text.cat([self.made.triggered[pick[:PAIRS]].float(), texts]),
        )
        # The patch covers a sixteenth of a picture, and would count for as little.
        each = ((out - torch.cat([wanted, kept])).square() * self.stress).flatten(1).mean(1)
        return (each * self.plain.weight[torch.cat([t[:PAIRS], t])]).mean()


def make(where: World, case: Case, parts: Parts, name: str) -> Parts:
    made = poison(where, case, parts)
    print(f"{name}: patch covers {int(made.region.sum())} of {made.region.numel()} latent positions", flush=True)
    teacher = copy.deepcopy(parts.unet).eval().requires_grad_(False)
    loss = Loss(made, teacher, parts.prediction)
    key = f"{case.key} {STRESS}"
    return parts._replace(unet=finetune.tune(where, name, parts.unet, loss, case.steps, RATE, key, EAGER))
