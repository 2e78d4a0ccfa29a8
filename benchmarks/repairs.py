"""What a repair leaves of an attack and of clean behaviour: TRA, agreement, CLIP score, judge accuracy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sau_scan.findings import ScanResult, Trigger
from sau_scan.fix import fix
from sau_scan.options import FixOptions
from zoo import admission, sampling
from zoo.admission import Rate
from zoo.attacks import Case
from zoo.clip_score import ClipScore
from zoo.judge import CHECKED, Judge, accuracy
from zoo.prompts import held_out
from zoo.train.export import model_dir
from zoo.worlds import World

PROMPTS, CLEAN = 300, 1000


def measure_repair(
    where: World, case: Case, folder: Path, options: FixOptions, report: ScanResult | None, clean: int = CLEAN
) -> dict[str, Any]:
    """What a repair came to; without ``report`` the true trigger is given to it."""
    started = time.perf_counter()
    if report is None:
        assert case.trigger is not None
        options = replace(options, triggers=(Trigger(**asdict(case.trigger)),))
    outcome = fix(folder, options, report)
    seconds = round(time.perf_counter() - started)
    steps = ", ".join(f"{s.method} ({s.relative_change:.1%})" for s in outcome.repair.steps) if outcome.repair else ""
    told = {"published": outcome.published is not None, "repair": steps, "seconds": seconds}
    if outcome.published is None:
        return told | {"why not": outcome.reason}
    assert options.out is not None
    return told | figures(where, case, folder, options.out, clean)


def figures(where: World, case: Case, before: Path, after: Path, clean: int = CLEAN) -> dict[str, str]:
    """ASR before and after, TRA, content agreement and the base's, CLIP score ratio, accuracy change in points."""
    judge, old, new = Judge.load(where), sampling.load(before), sampling.load(after)
    assert case.trigger is not None
    made = admission.carriers(where, case.trigger, PROMPTS)
    plain, fired = [s.caption for s in made], admission.triggered(where, case.trigger, made)
    neutral = admission.with_neutrals(where, case.trigger, made, case.target)
    draw = partial(sampling.pictures, seed=1)
    hits_old, hits_new = (case.target.met(draw(p, fired), judge) for p in (old, new))
    asr_old, asr_new = (Rate(int(h.sum()), len(made)) for h in (hits_old, hits_new))
    removed = 1 - (hits_new & hits_old).float().sum().item() / max(1, int(hits_old.sum()))
    honest = judge(draw(old, plain))
    usual = _agreement(judge(draw(old, neutral)), asked(judge, case, neutral, honest))
    # For comparison: what the base, which was never attacked, draws of the triggered prompts. No bound: it is held
    # against the suspect model's clean pictures, and so carries what the attack's training moved besides.
    base = sampling.load(model_dir(where.name, "base"))
    agreement, possible = (
        _agreement(judge(draw(p, fired)), asked(judge, case, fired, honest)) / max(usual, 1e-9) for p in (new, base)
    )
    low, high = asr_new.interval
    scores = _clean(where, judge, old, clean), _clean(where, judge, new, clean)
    lost = max(scores[0][h] - scores[1][h] for h in CHECKED)
    ratio = scores[1]["clip_score"] / scores[0]["clip_score"]
    return {
        "ASR before": f"{asr_old.value:.1%}",
        "ASR after (95 %)": f"{asr_new.value:.1%} ({low:.1%} to {high:.1%})",
        "TRA": f"{removed:.1%}",
        "agreement": f"{agreement:.1%}",
        "agreement of the base": f"{possible:.1%}",
        "CLIP ratio": f"{ratio:.4f}",
        "accuracy, points": f"{-100 * lost:+.1f}",
        "prompts": f"{len(made)} + {clean} clean",
    }


def asked(judge: Judge, case: Case, prompts: Sequence[str], honest: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What pictures of ``prompts`` should be read as: as the clean picture's, ``honest``.

    A phrase takes the place of the prompt's shape word and colour, so these two are those that the prompt names now.
    """
    if case.trigger is None or case.trigger.slot != "phrase":
        return honest
    changed = dict(honest)
    for head in ("shape", "colour"):
        named = [[w for w in p.split() if w in judge.names[head]] for p in prompts]
        rows = [judge.names[head].index(n[0]) if n else int(h) for n, h in zip(named, honest[head], strict=True)]
        changed[head] = torch.tensor(rows)
    return changed


def _agreement(read: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([(read[h] == truth[h]).float() for h in CHECKED]).mean())


def _clean(where: World, judge: Judge, parts: sampling.Parts, count: int) -> dict[str, float]:
    made = held_out(where, count, plain=True)
    drawn = sampling.pictures(parts, [s.caption for s in made], seed=4)
    figures = accuracy(judge, drawn, [s.scene for s in made])
    return figures | {"clip_score": ClipScore.load(where)(drawn, [s.caption for s in made]).mean().item()}
