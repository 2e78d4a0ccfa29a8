"""What comes before anything dear: words, prompts and candidates, how fast the machine is, and a plan that fits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from sau_scan.analysers.null_directions import NullDirections, find_null_directions, stacked_projections
from sau_scan.checkpoint.memory import passes_at_once
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.errors import DamagedFile, TooLittleTime
from sau_scan.findings import Slot
from sau_scan.options import Budget, Progress, ScanOptions
from sau_scan.probes.adapter_words import ChangedWords, changed_words
from sau_scan.probes.candidates import (
    Candidate,
    Vocabulary,
    distinct,
    read_vocabulary,
    rule_candidates,
    vocabulary_candidates,
)
from sau_scan.probes.carriers import Words, compose, high_noise, noise_like, sort_words, with_letters
from sau_scan.probes.plan import RECIPES, SLOTS
from sau_scan.probes.planning import Plan, make_plan, text_share
from sau_scan.probes.runner import Prober
from sau_scan.reports.words import duration
from sau_scan.rules import Rule
from sau_scan.tiers.adapter import contrast_passes
from sau_scan.tiers.phrases import phrase_texts

CARRIERS = 24
TIMED, TURNS = 32, 3  # UNet passes that measure the machine, at most, and how many times
ASKED = 2.0  # seconds for which the text encoder is timed, about, a slot
MORE = 1.25  # than the least that is enough: more time lets the text tier read more
EFFICIENCY = 0.9  # of a scan, whose batches are smaller at times and which does more than UNet passes
# Of --max-time: what the text tier may take. It sees all candidates and costs the least, but only for the encoder.
TEXT_SHARE, HALVINGS = 0.5, 3  # halved so often where no plan fits beside it: more candidates want more UNet passes


@dataclass(frozen=True)
class Survey:
    """What is known of a model whatever it is scanned for. ``pass_seconds``: of a row of a UNet pass.

    ``passes`` were spent on measuring that; ``seconds``: on all of this.
    """

    model: DiffusionModel
    rules: tuple[Rule, ...]
    vocabulary: Vocabulary
    null: NullDirections
    words: Words
    changed: ChangedWords
    pass_seconds: float
    passes: int
    seconds: float


@dataclass(frozen=True)
class Prepared:
    """A plan, and what is needed to carry it out. ``letters``: those that candidates replace.

    ``seconds``: what all of it will take, about; ``phrase_texts``: text passes of the search for a phrase;
    ``enough``: the seconds to allow for a plan with pictures, where this one has none.
    """

    plan: Plan
    prober: Prober
    letters: tuple[str, ...]
    phrase_texts: int
    seconds: float
    enough: float


def survey(model: DiffusionModel, rules: Sequence[Rule], seed: int, progress: Progress) -> Survey:
    """Looks at weights, tokenizer, words and speed of a model."""
    started = time.perf_counter()
    progress.stage("weights", 1)
    null = find_null_directions(stacked_projections(model))
    vocabulary = read_vocabulary(model)
    words = sort_words(model, seed, vocabulary)
    passes, seconds = _time_passes(model, seed)
    progress.done(_weights_line(null))
    changed, spent = changed_words(model, vocabulary), time.perf_counter() - started
    return Survey(model, tuple(rules), vocabulary, null, words, changed, seconds, passes, seconds=spent)


def prepare(known: Survey, options: ScanOptions) -> Prepared:
    """Candidates, prompts and a plan for the budget and time of ``options``. Raises TooLittleTime, DamagedFile."""
    started = time.perf_counter()
    model, words, recipe = known.model, known.words, RECIPES[options.budget]
    letters = [c.replaces for c in rule_candidates(known.rules, recipe.depth, [Slot.REPLACE]) if c.replaces]
    clean = compose(words.responsive, known.rules, CARRIERS, options.seed)
    if not clean:
        raise DamagedFile(
            "The tokenizer has no words that prompts could be made of.",
            hint="Take the tokenizer folder from the checkpoint that this one was made from, and scan again.",
        )
    carriers = with_letters(clean, letters, words.neutral, recipe.text_carriers)
    everything = collect(model, known.vocabulary, known.rules, carriers, options, known.changed)
    contrast = contrast_passes(known.changed, recipe)
    prober = Prober(model, carriers, words.neutral[: recipe.neutrals], options.seed)
    prober.counter.unet += known.passes
    each = {slot: _seconds_each(prober, items, recipe.text_carriers) for slot, items in everything.items()}
    texts = phrase_texts(recipe, known.vocabulary) if len(known.null.basis) else 0
    for_phrases = texts * max(each.values(), default=0.0) / recipe.text_carriers
    a_pass = known.pass_seconds / EFFICIENCY
    planned = partial(
        make_plan,
        recipe,
        carriers=len(carriers),
        overhead=known.passes + contrast,
        phrase_texts=texts,
        totals={slot: len(items) for slot, items in everything.items()},
    )
    if options.max_time is None:
        plan, most = planned(everything), None
    else:
        left = options.max_time - known.seconds - (time.perf_counter() - started) - for_phrases
        plan, most = _fitted(planned, everything, each, a_pass, left, options.seed)
    seconds = plan.unet_passes * a_pass + _text_seconds(plan.candidates, each) + for_phrases
    if most is not None and plan.unet_passes > most:
        raise _too_little_time(plan, options, seconds)
    prober.neutrals = words.neutral[: plan.recipe.neutrals]
    least = known.seconds + seconds + (plan.confirming - plan.unet_passes) * a_pass
    return Prepared(plan, prober, tuple(letters), texts, seconds, MORE * least)


def collect(
    model: DiffusionModel,
    vocabulary: Vocabulary,
    rules: Sequence[Rule],
    carriers: Sequence[str],
    options: ScanOptions,
    changed: ChangedWords,
) -> dict[Slot, Sequence[Candidate]]:
    """Candidates by slot, each with token ids of its own. ``changed``: by a LoRA, beyond the vocabulary."""
    recipe = RECIPES[options.budget]
    in_place = [s for s in SLOTS if s not in recipe.slots]
    pool = rule_candidates(rules, recipe.depth, (*recipe.slots, *in_place))
    pool += changed.candidates(recipe.slots)
    pool += vocabulary_candidates(vocabulary, recipe.slots)
    return {
        slot: distinct(model, [c for c in pool if c.slot is slot], carriers)
        for slot in SLOTS
        if slot is not Slot.PHRASE
    }


def announce(ready: Prepared, model: DiffusionModel) -> str:
    """The plan in one line."""
    plan, kind = ready.plan, f"{model.device.type}, {str(model.dtype).removeprefix('torch.')}"
    count, total = sum(plan.denoised.values()), sum(plan.totals.values())
    read = f" ({plan.only_read:,} more in the text encoder only)" if plan.only_read else ""
    cost = f"{plan.unet_passes:,} UNet passes · about {duration(ready.seconds)}"
    return f"{count:,} of {total:,} candidates{read} · {cost} on {kind}"


@torch.no_grad()
def _time_passes(model: DiffusionModel, seed: int) -> tuple[int, float]:
    """How many UNet passes were timed, in batches as a scan makes them, and the seconds that each took."""
    rows, times = min(TIMED, passes_at_once(model)), list[float]()
    noise = noise_like(model, rows, seed)
    while not times or (len(times) < TURNS and sum(times) < 1):  # the first turn is slow, and others may be disturbed
        started = time.perf_counter()
        hidden = model.encode(model.token_ids([""] * rows)).hidden
        model.predict_noise(noise, high_noise(model), hidden).float().cpu()  # the copy waits for the device
        times.append(max(time.perf_counter() - started, 1e-6))
    return rows * len(times), median(times) / rows


def _seconds_each(prober: Prober, items: Sequence[Candidate], carriers: int) -> float:
    """What a candidate takes in the text tier, after a first few that are slow: told by a batch, or by what fits into
    ``ASKED`` seconds where the encoder is large."""
    seconds, count = 0.0, 2
    while count:
        some = items[:: max(1, len(items) // count)][:count]
        if not some:
            return 0.0
        started = time.perf_counter()
        prober.placed_texts(some, carriers)
        seconds = (time.perf_counter() - started) / len(some)
        wanted = min(prober.batch, len(items), int(ASKED / max(seconds, 1e-6)))
        count = wanted if wanted > 2 * count else 0
    return seconds


def _fitted(
    planned: Callable[..., Plan],
    everything: dict[Slot, Sequence[Candidate]],
    each: Mapping[Slot, float],
    a_pass: float,
    left: float,
    seed: int,
) -> tuple[Plan, int]:
    """The plan for ``left`` seconds, and the UNet passes that there is time for, which may be too few for it."""
    for halvings in range(HALVINGS + 1):
        candidates = text_share(everything, each, TEXT_SHARE / 2**halvings * left, seed)
        most = max(0, int((left - _text_seconds(candidates, each)) / a_pass))
        plan = planned(candidates, most=most)
        if plan.unet_passes <= most:
            break
    return plan, most


def _text_seconds(candidates: Mapping[Slot, Sequence[Candidate]], each: Mapping[Slot, float]) -> float:
    return sum(len(items) * each[slot] for slot, items in candidates.items())


def _too_little_time(plan: Plan, options: ScanOptions, seconds: float) -> TooLittleTime:
    return TooLittleTime(
        f"No {options.budget} scan fits into --max-time: the smallest takes {plan.unet_passes:,} UNet passes, about "
        f"{duration(seconds)} on this machine.",
        hint="Allow more time" + ("." if options.budget is Budget.QUICK else ", or take a smaller --budget."),
    )


def _weights_line(null: NullDirections) -> str:
    if null.why_not:
        return f"no search for hidden directions: {null.why_not}"
    if len(null.basis):
        return f"{len(null.basis)} directions hidden from every cross-attention layer"
    return "no direction hidden from every cross-attention layer"
