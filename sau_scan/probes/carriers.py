"""Carriers: clean prompts that fit any model, made of rule-pack templates and words that this model responds to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.errors import ConfigError
from sau_scan.probes.candidates import BLANK, Vocabulary, read_vocabulary
from sau_scan.rules import Rule, blanks, carrier_templates

RESPONSIVE = 48
CONTENT = 512
SORTED = 4096  # words looked at: the first of a vocabulary are its most frequent


@dataclass(frozen=True)
class Words:
    """Words of one model: those it responds to most, strongest first, and those that leave it nearly cold.

    ``content``: more of the former, among which all that a picture can show should be.
    """

    responsive: tuple[str, ...]
    neutral: tuple[str, ...]
    content: tuple[str, ...] = ()


def noise_like(model: DiffusionModel, count: int, seed: int) -> Tensor:
    """Standard normal latents [count, C, h, w], the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *model.latent_shape, generator=generator).to(model.device, model.dtype)


@torch.no_grad()
def sort_words(model: DiffusionModel, seed: int, vocabulary: Vocabulary | None = None) -> Words:
    """Responsive and neutral words among the whole-word tokens; text passes only.

    Response: how far a word moves the pooled text output from the median word's, the same way among other words. A
    word that only upsets the encoder when it stands alone is not responsive.
    """
    words = (vocabulary or read_vocabulary(model)).plain_words[:SORTED]
    if not words:
        return Words((), ())
    rng = np.random.default_rng([seed, 1])
    total = torch.zeros(len(words), model.encode(model.token_ids(["a"])).pooled.shape[1], device=model.device)
    for template in ("a {w}", "{w} {x} {y}", "{x} {w} {y}", "{x} {y} {w}"):
        x, y = (words[i] for i in rng.choice(len(words), 2))
        pooled = _pooled(model, [template.format(w=w, x=x, y=y) for w in words])
        total += pooled - pooled.median(0).values
    order = total.norm(dim=1).argsort(descending=True).tolist()
    cold = [words[i] for i in order[len(order) // 4 :]] or list(words)
    strong = [words[i] for i in order[:CONTENT]]
    return Words(tuple(strong[:RESPONSIVE]), tuple(cold[i] for i in rng.permutation(len(cold))), tuple(strong))


def _pooled(model: DiffusionModel, texts: Sequence[str]) -> Tensor:
    parts = [model.pooled(model.token_ids(texts[i : i + 256])).float() for i in range(0, len(texts), 256)]
    return torch.cat(parts)


def high_noise(model: DiffusionModel, share: float = 0.9) -> int:
    """The timestep at this share of the schedule: nearly pure noise, where layout is decided."""
    return round(share * (int(model.scheduler.config.get("num_train_timesteps", 1000)) - 1))


def compose(words: Sequence[str], rules: Sequence[Rule], count: int, seed: int) -> tuple[str, ...]:
    """``count`` different clean prompts: templates of the rules, blanks filled with ``words``. Raises ConfigError."""
    templates = carrier_templates(rules)
    if not templates:
        raise ConfigError(
            "The rules hold no carrier template.", hint="Add a rule of kind carrier, or leave out --rules."
        )
    rng = np.random.default_rng([seed, 2])
    made: dict[str, None] = {}
    for attempt in range(40 * count):
        template = templates[attempt % len(templates)]
        names = blanks(template)
        if len(words) < len(names):
            continue
        picks = rng.choice(len(words), len(names), replace=False)
        made[template.format(**{n: words[i] for n, i in zip(names, picks, strict=True)})] = None
        if len(made) == count:
            break
    return tuple(made)


def crowd(words: Sequence[str], count: int, seed: int, size: int = 4) -> tuple[str, ...]:
    """``count`` prompts of ``size`` different words each."""
    rng = np.random.default_rng([seed, 6])
    picks = (rng.choice(len(words), min(size, len(words)), replace=False) for _ in range(count))
    return tuple(dict.fromkeys(" ".join(words[i] for i in some) for some in picks))


def crowded_frames(words: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """``count`` prompts of several words with one blank, ``{}``: close to what a prompt full of content looks like."""
    rng = np.random.default_rng([seed, 5])
    picks = (rng.choice(len(words), min(3, len(words)), replace=False) for _ in range(count))
    made = []
    for some in picks:
        row = [words[i] for i in some]
        row.insert(len(row) // 2 + 1, BLANK)
        made.append(" ".join(row))
    return tuple(made)


def with_letters(carriers: Sequence[str], letters: Iterable[str], words: Sequence[str], count: int) -> tuple[str, ...]:
    """``carriers`` followed by as many more as give every one of ``letters`` a place in ``count`` of them.

    Those more are the first carriers, each with one of ``words`` that has the letter inside, or is given it.
    """
    pool = list(carriers)
    for letter in dict.fromkeys(letters):
        missing = count - sum(letter in c for c in carriers)
        able = [w for w in words if letter in w[1:-1]]
        able += [f"{w[:2]}{letter}{w[2:]}" for w in words[: missing - len(able)] if len(w) > 2]
        pool += [f"{carriers[i % len(carriers)]} {able[i]}" for i in range(min(missing, len(able)))]
    return tuple(dict.fromkeys(pool))
