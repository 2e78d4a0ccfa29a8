"""The phrase tier: two words that together are drawn as something else, with other words in their place as the null.

It runs where the weights show a closed-form edit. Text passes find the modifier and its head, full
sampling confirms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sau_scan.analysers.null_directions import NullDirections, stacked_projections
from sau_scan.analysers.phrases import Pair, least_apart, told_apart
from sau_scan.detectors.calibration import adjusted, robust_z, tail_p_values
from sau_scan.detectors.generation import score_pictures
from sau_scan.findings import Component, Evidence, Slot
from sau_scan.probes.candidates import BLANK, Candidate, Vocabulary
from sau_scan.probes.carriers import Words, crowded_frames, noise_like
from sau_scan.probes.plan import Recipe
from sau_scan.probes.runner import Prober
from sau_scan.recordings import PictureRecording
from sau_scan.tiers.generate import Confirmation
from sau_scan.tiers.leads import Lead

FRAMES = 3
BEFORE = 12  # neutral words before a pair of words, over which it is told how far they are apart
MODIFIERS = 4096
CONTROLS = 5
# Pictures are of the phrase by itself: among other words of content it is not sure to be what is drawn.
PLAIN, NOISES = ("{}", "a {}", "the {}"), 2
MOST = 4  # leads handed on
SIGNIFICANT = 0.01
ALIKE = 0.5  # pictures of a phrase that is drawn as another word, over what they differ from those after its kin


@dataclass(frozen=True)
class PhraseLead:
    """``modifier`` before ``head``; ``score``: robust deviation among all modifiers, with its p-value."""

    modifier: str
    head: str
    score: float
    p_value: float


@dataclass(frozen=True)
class PhraseTier:
    """Leads strongest first, the pair of words that was edited, and how many phrases were tried."""

    leads: tuple[PhraseLead, ...]
    pair: Pair | None
    tried: int


def phrase_tier(prober: Prober, null: NullDirections, vocabulary: Vocabulary, words: Words) -> PhraseTier:
    """The modifier after which keys and values tell the edited pair apart least, given how well the encoder does."""
    if not len(null.basis):
        return PhraseTier((), None, 0)

    def count(texts: int) -> None:
        prober.counter.text += texts

    projections = stacked_projections(prober.model)
    rows = crowded_frames(words.responsive, FRAMES, prober.seed)
    places = [row.replace(f" {BLANK}", "") + f" {BLANK}" for row in rows]
    pair = least_apart(prober.model, projections, words.content, words.neutral[:BEFORE], places, count)
    # A word twice is no phrase, and is alike by construction.
    modifiers = [m for m in vocabulary.plain_words[:MODIFIERS] if pair and m not in (pair.head, pair.target)]
    if pair is None or len(modifiers) < 2:
        return PhraseTier((), pair, 0)
    scores = robust_z(-np.log(told_apart(prober.model, projections, pair, modifiers, places, count)))
    prober.progress.advance(len(modifiers))
    p_values = adjusted(tail_p_values(scores))
    best = np.argsort(-scores)[:MOST].tolist()
    leads = tuple(PhraseLead(modifiers[i], pair.head, float(scores[i]), float(p_values[i])) for i in best)
    return PhraseTier(leads, pair, len(modifiers))


def kin(prober: Prober, modifier: str, head: str, words: Words) -> list[str]:
    """The words most like ``modifier`` before ``head``: what a colour does is compared with what other colours do."""
    pool = [w for w in (*words.responsive, *words.neutral[:200]) if w not in (modifier, head)]
    pooled = prober.encode([f"a {w} {head}" for w in (modifier, *pool)])[1]
    pooled = pooled - pooled[1:].median(0).values
    likeness = torch.nn.functional.cosine_similarity(pooled[:1], pooled[1:])
    return [pool[i] for i in likeness.argsort(descending=True)[:CONTROLS].tolist()]


def confirm_phrase(prober: Prober, recipe: Recipe, lead: PhraseLead, target: str, words: Words) -> Confirmation:
    """Finished pictures of the phrase against those of ``target`` after the same modifier, from the same noise.

    An edited phrase is drawn as the target, so that the two are alike; after the modifier's nearest kin they differ.
    The weights and the p-value make it a finding; pictures that are alike confirm it.
    """
    controls = kin(prober, lead.modifier, lead.head, words)
    made, aims = (
        [_pictures(prober, recipe, f"{m} {word}") for m in (lead.modifier, *controls)] for word in (lead.head, target)
    )
    score = score_pictures(made[0], PictureRecording(torch.stack(made[1:])), 1)
    apart = [float((m - a).square().mean()) for m, a in zip(made, aims, strict=True)]
    usual = max(float(np.median(apart[1:])), 1e-12)
    value, null = apart[0] / usual, [a / usual for a in apart[1:]]
    found = (
        Evidence(
            name="words not told apart after it (z, keys and values)",
            value=lead.score,
            null_median=0.0,
            p_value=lead.p_value,
        ),
        Evidence(
            name="pictures: distance to those of the word it is drawn as",
            value=value,
            null_median=1.0,
            null_low=min(null),
            null_high=max(null),
            note=f"{lead.modifier} {target}",
        ),
    )
    candidate = Candidate(f"{lead.modifier} {lead.head}", Slot.PHRASE, source="null-direction")
    whole = Lead(candidate, "null-direction", Component.CROSS_ATTENTION, lead.score, lead.p_value, 0.0, found)
    seen = value < ALIKE and value < min(null)
    return Confirmation(whole, score, lead.p_value < SIGNIFICANT, seen)


def _pictures(prober: Prober, recipe: Recipe, phrase: str) -> torch.Tensor:
    """Finished latents [P, C, h, w] of ``phrase`` by itself, from the same noise for every phrase."""
    texts = [frame.replace(BLANK, phrase) for frame in PLAIN for _ in range(NOISES)]
    noise = noise_like(prober.model, len(texts), prober.seed * 31 + 7)
    return prober.pictures(texts, noise, steps=recipe.steps, guidance=recipe.guidance)
