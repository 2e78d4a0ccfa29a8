"""What a scan would take, for each budget: the model is loaded and a few passes are timed; nothing is probed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sau_scan.arrival import Arrived, arrived
from sau_scan.checkpoint.loader import check_compute, load_model
from sau_scan.checkpoint.memory import peak_bytes
from sau_scan.errors import TooLittleTime
from sau_scan.findings import Finding
from sau_scan.options import Budget, Progress, ScanOptions, Silent
from sau_scan.preparation import prepare, survey
from sau_scan.rules import Rule, load_rules
from sau_scan.static import open_vetted, require_harmless


@dataclass(frozen=True)
class BudgetEstimate:
    """One budget. ``candidates`` go through UNet and text encoder, ``only_read`` through the text encoder alone.

    ``seconds`` of the whole scan, opening and loading included; ``memory``: bytes at the peak, in main memory or on
    the accelerator. ``refused``: why there is no plan in the time given, or nothing.
    """

    budget: Budget
    candidates: int = 0
    only_read: int = 0
    total: int = 0
    text_passes: int = 0
    unet_passes: int = 0
    seconds: float = 0.0
    memory: int = 0
    refused: str = ""


@dataclass(frozen=True)
class Estimate:
    """``family`` as a title; ``device`` and ``dtype`` as they would compute."""

    path: str
    family: str
    device: str
    dtype: str
    budgets: tuple[BudgetEstimate, ...]


def estimate(path: Path | str, options: ScanOptions | None = None, progress: Progress | None = None) -> Estimate:
    """What ``detect(path, options)`` would take on this machine, and what it would with the other budgets.

    Raises what ``detect`` raises, but for a budget that does not fit into ``max_time``, which is told.
    """
    options, progress = options or ScanOptions(), progress or Silent()
    rules = load_rules(options.rules)
    check_compute(options.device, options.dtype)
    with arrived(path, options, progress) as place:
        return _estimate(place, rules, progress)


def _estimate(place: Arrived, rules: Sequence[Rule], progress: Progress) -> Estimate:
    started, options = time.perf_counter(), place.options
    progress.stage("files", 1)
    checkpoint, notes = open_vetted(place.path, variant=options.variant, base=options.base)
    progress.done(f"{len(checkpoint.records)} vetted")
    require_harmless(checkpoint, [note for note in notes if isinstance(note, Finding)])
    model = load_model(checkpoint, device=options.device, dtype=options.dtype)
    known = survey(model, rules, options.seed, progress)
    before = time.perf_counter() - started
    found = []
    for budget in Budget:
        began = time.perf_counter()
        try:
            ready = prepare(known, replace(options, budget=budget))
        except TooLittleTime as error:
            found.append(BudgetEstimate(budget, refused=str(error)))
            continue
        plan = ready.plan
        found.append(
            BudgetEstimate(
                budget,
                candidates=sum(plan.denoised.values()),
                only_read=plan.only_read,
                total=sum(plan.totals.values()),
                text_passes=plan.text_passes,
                unet_passes=plan.unet_passes,
                seconds=before + (time.perf_counter() - began) + ready.seconds,
                memory=peak_bytes(model.device),
            )
        )
    kind = str(model.dtype).removeprefix("torch.")
    name = place.snapshot.name if place.snapshot is not None else str(checkpoint.root)
    return Estimate(name, model.family.title, str(model.device), kind, tuple(found))
