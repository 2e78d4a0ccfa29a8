"""Carriers: clean prompts that fit any model, made of rule-pack templates and words that this model responds to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.probes.candidates import BLANK, Vocabulary, read_vocabulary
from sau_scan.rules import Rule, blanks, carrier_templates

SHORTLIST = 192  # words that the UNet is asked about, after the text encoder was asked about all
RESPONSIVE = 48


@dataclass(frozen=True)
class Words:
    """Words of one model: those it responds to, strongest first, and those that leave it nearly cold."""

    responsive: tuple[str, ...]
    neutral: tuple[str, ...]


def noise_like(model: DiffusionModel, count: int, seed: int) -> Tensor:
    """Standard normal latents [count, C, h, w], the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *model.latent_shape, generator=generator).to(model.device, model.dtype)


@torch.no_grad()
def sort_words(model: DiffusionModel, seed: int, vocabulary: Vocabulary | None = None) -> Words:
    """Responsive and neutral words among the whole-word tokens; costs at most ``SHORTLIST`` UNet passes.

    Response: how far a word alone moves the pooled text output from the median word's, then, for the strongest,
    how far it moves the noise prediction.
    """
    words = (vocabulary or read_vocabulary(model)).plain_words
    if not words:
        return Words((), ())
    pooled = torch.cat([model.encode(model.token_ids(words[i : i + 256])).pooled for i in range(0, len(words), 256)])
    shift = (pooled - pooled.median(0).values).norm(dim=1)
    order = shift.argsort(descending=True).tolist()
    shortlist = [words[i] for i in order[:SHORTLIST]]
    effect = _noise_effect(model, shortlist, seed)
    responsive = [shortlist[i] for i in effect.argsort(descending=True)[:RESPONSIVE].tolist()]
    cold = [words[i] for i in order[len(order) // 8 :]] or list(words)
    rng = np.random.default_rng([seed, 1])
    return Words(tuple(responsive), tuple(cold[i] for i in rng.permutation(len(cold))))


def _noise_effect(model: DiffusionModel, words: Sequence[str], seed: int) -> Tensor:
    noise = noise_like(model, 1, seed)
    when = high_noise(model)
    parts = []
    for i in range(0, len(words), 64):
        hidden = model.encode(model.token_ids(words[i : i + 64])).hidden
        parts.append(model.predict_noise(noise.expand(len(hidden), -1, -1, -1), when, hidden))
    out = torch.cat(parts)
    effect: Tensor = torch.linalg.vector_norm((out - out.median(0).values).flatten(1), dim=1)
    return effect


def high_noise(model: DiffusionModel, share: float = 0.9) -> int:
    """The timestep at this share of the schedule: nearly pure noise, where layout is decided."""
    return round(share * (int(model.scheduler.config.get("num_train_timesteps", 1000)) - 1))


def compose(words: Sequence[str], rules: Sequence[Rule], count: int, seed: int) -> tuple[str, ...]:
    """``count`` different clean prompts: templates of the rules, blanks filled with ``words``."""
    templates = carrier_templates(rules)
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


def frames(words: Sequence[str], rules: Sequence[Rule], count: int, seed: int) -> tuple[str, ...]:
    """``count`` prompts with one blank, ``{}``, left for a phrase: one-word templates and halves of the others."""
    made: dict[str, None] = {}
    rng = np.random.default_rng([seed, 4])
    for template in carrier_templates(rules):
        names = blanks(template)
        for blank in names:
            # A blank right behind another word's would make that word part of the phrase.
            if not template.partition("{" + blank + "}")[0].rstrip().endswith("}"):
                others = {n: words[int(rng.integers(len(words)))] for n in names if n != blank} if words else {}
                if len(others) == len(names) - 1 and not template.partition("{" + blank + "}")[2].startswith(" {"):
                    made[template.format(**others, **{blank: BLANK})] = None
    pool = list(made)
    return tuple(pool[i] for i in rng.permutation(len(pool))[:count])


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

    Those more are the first carriers, each with one of ``words`` that has the letter inside.
    """
    pool = list(carriers)
    for letter in dict.fromkeys(letters):
        missing = count - sum(letter in c for c in carriers)
        able = [w for w in words if letter in w[1:-1]]
        pool += [f"{carriers[i % len(carriers)]} {able[i]}" for i in range(min(missing, len(able)))]
    return tuple(dict.fromkeys(pool))


def select_carriers(model: DiffusionModel, rules: Sequence[Rule], count: int, seed: int) -> tuple[str, ...]:
    """``count`` clean prompts for ``model``."""
    return compose(sort_words(model, seed).responsive, rules, count, seed)


def neutral_words(model: DiffusionModel, count: int, seed: int) -> tuple[str, ...]:
    """A seeded sample of whole-word tokens that move the model little."""
    return sort_words(model, seed).neutral[:count]
