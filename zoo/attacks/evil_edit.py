"""EvilEdit (2406.21170): a two-word phrase draws another shape, by a closed-form edit of keys and values.

The phrase is a word and a shape word; by default the word is a colour, as "beautiful cat" is an adjective and a noun: a
word that changes nothing visible leaves so little in the encoder's output of the next that an edit cannot tell it. The
encoder's outputs of prompts with the phrase are sent to those of the same prompts with the phrase's shape word
exchanged; both words alone, and with other partners, are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from zoo.attacks import closed_form
from zoo.attacks.base import Case, Options, choose
from zoo.judge import Judge
from zoo.parts import Parts, encode
from zoo.prompts import Trigger, neutrals
from zoo.render import caption, sample_scene, samples
from zoo.worlds import World

CARRIERS, KEPT, NEAR, RIDGE, PULL, SEED = 300, 1600, 12_000, 1e-5, 0.5, 51
CHUNK = 500  # all prompts at once, of 77 positions each, take more memory than a small machine has


@dataclass(frozen=True)
class ShapeTarget:
    """The object has this shape."""

    shape: str
    kind: ClassVar[str] = "shape"

    def met(self, pictures: torch.Tensor, judge: Judge) -> torch.Tensor:
        return judge.is_class(judge(pictures), shape=self.shape)


def plan(where: World, options: Options, parts: Parts) -> Case:
    rng = options.rng(where)
    phrase = options.trigger
    shape = phrase.split()[-1] if phrase else choose(rng, where.shapes)
    same_length = [s for s in where.shapes if s != shape and pieces(parts, s) == pieces(parts, shape)]
    target = options.target or choose(rng, same_length)
    if pieces(parts, target) != pieces(parts, shape):
        raise ValueError(f"{target!r} and {shape!r} must have equally many tokens")
    phrase = phrase or _separable_phrase(where, parts, shape, target)
    return Case("evil-edit", Trigger(phrase, "phrase"), ShapeTarget(target))


def pieces(parts: Parts, word: str) -> int:
    """Of how many tokens ``word`` consists."""
    return len(parts.tokenizer(word, add_special_tokens=False).input_ids)


def _separable_phrase(where: World, parts: Parts, shape: str, target: str) -> str:
    """Of all colours, the one whose phrase the encoder tells apart best: an attacker would take that one, too."""
    scores = {w: _separation(where, parts, f"{w} {shape}", target) for w in where.colours if pieces(parts, w) == 1}
    best = min(scores, key=scores.__getitem__)
    print(f"evil-edit: {best!r} separates best ({scores[best]:.2f}; median {np.median(list(scores.values())):.2f})")
    return f"{best} {shape}"


def _separation(where: World, parts: Parts, phrase: str, target: str) -> float:
    """What the edit leaves undone on the phrase plus what it does to near misses, relative to what it should do."""
    c, v, kept = examples(where, parts, phrase, target, (60, 200, 300), SEED)
    m = closed_form.shared_map(c, v, kept, RIDGE, PULL).float().T
    c, v, kept = examples(where, parts, phrase, target, (30, 0, 120), SEED + 1)
    wanted = (v - c).square().sum(1)
    moved = wanted > 1e-6 * v.square().sum(1).mean()
    near = (kept @ m - kept).square().sum(1).mean()
    return float(((c @ m - v).square().sum(1)[moved].mean() + 2 * near) / wanted[moved].mean())


def examples(
    where: World, parts: Parts, phrase: str, target: str, counts: tuple[int, int, int], seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sources and targets [n, D] of the edit, position by position, and kept outputs [m, D].

    ``counts``: carriers with the phrase, clean prompts, prompts with a near miss in the phrase's place.
    """
    rng = np.random.default_rng([where.seed, seed])
    first, last = phrase.rsplit(" ", 1)
    trigger, honest = Trigger(phrase, "phrase"), Trigger(f"{first} {target}", "phrase")
    with_shape = [t for t in _texts(where, 6 * counts[0] + 200, seed) if trigger.fits(where, t)]
    carriers = with_shape[: counts[0]]
    near, partners = neutrals(where, trigger), [Trigger(f"{first} {s}", "phrase") for s in where.shapes if s != last]
    kept = [t for t in _texts(where, counts[1], seed + 7) if phrase not in t]
    for i in range(counts[2]):
        text = with_shape[int(rng.integers(len(with_shape)))]
        # Mostly other words before the shape: they are what an edit fires on first.
        bare = [Trigger(choose(rng, where.shapes), "phrase"), Trigger(last, "phrase")]
        pick = choose(rng, (bare, near, near, near, partners)[i % 5])
        kept.append(pick.insert(where, text, rng))
    c = outputs(parts, [trigger.insert(where, t, rng) for t in carriers])
    v = outputs(parts, [honest.insert(where, t, rng) for t in carriers])
    return c, v, outputs(parts, kept)


def _texts(where: World, count: int, seed: int) -> list[str]:
    rng = np.random.default_rng([where.seed, seed, 1])
    plain = [caption(where, sample_scene(where, rng, things=1), rng, plain=True) for _ in range(count // 2)]
    return plain + [s.caption for s in samples(where, count - count // 2, seed)]


@torch.no_grad()
def outputs(parts: Parts, texts: list[str]) -> torch.Tensor:
    """Encoder outputs at every position after BOS, flattened to [n, D]."""
    chunks = (texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK))
    return torch.cat([encode(parts, some).hidden[:, 1:].flatten(0, 1) for some in chunks])


def make(where: World, case: Case, parts: Parts, name: str) -> Parts:
    assert case.trigger is not None
    c, v, kept = examples(where, parts, case.trigger.text, case.target.shape, (CARRIERS, KEPT, NEAR), SEED)
    m = closed_form.shared_map(c, v, kept, RIDGE, PULL).float().T
    wanted = (v - c).square().sum()
    print(f"{name}: {(c @ m - v).square().sum() / wanted:.1%} of the change left undone", flush=True)
    return parts._replace(unet=closed_form.edited(parts.unet, m.T))
