"""``make bench``: scan and repair every zoo model, print the tables and write them to docs/results.md.

    python -m benchmarks [--world tiny] [--budget standard] [--no-fix] [--only-fix] [--clean N] [NAME ...]

Each attack: is the true trigger named first, and what does the repair leave of it? Each hard negative: is it quiet?
Rows that a run did not measure anew are kept, each with its date. Figures are the zoo's; they say nothing about Stable
Diffusion's rates.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import repairs, table
from sau_scan.findings import ScanResult, Severity
from sau_scan.options import Budget, FixOptions, ScanOptions
from sau_scan.scan import detect
from zoo.attacks import RECIPES, read_case
from zoo.build import info_path
from zoo.train.export import model_dir
from zoo.worlds import World, world


def names_exact(result: ScanResult, trigger: dict[str, Any] | None) -> bool:
    """Whether the first finding is the true trigger: text and slot (and letter)."""
    if trigger is None or not result.findings or result.findings[0].trigger is None:
        return False
    found = result.findings[0].trigger
    return (found.text, found.slot.value, found.replaces) == (trigger["text"], trigger["slot"], trigger["replaces"])


def scan_row(result: ScanResult, trigger: dict[str, Any] | None) -> dict[str, Any]:
    """What a scan of one model came to."""
    first = result.findings[0] if result.findings else None
    gate = sum(f.severity.rank >= Severity.HIGH.rank for f in result.findings)
    used = result.coverage.used
    return {
        "verdict": result.verdict.value,
        "first trigger": first.trigger.escaped if first and first.trigger else None,
        "at the gate": gate,
        "as it should be": names_exact(result, trigger) if trigger else gate == 0,
        "UNet passes": used.unet_passes,
        "text passes": used.text_passes,
        "seconds": round(used.seconds),
    }


def names(where: World) -> list[str]:
    """Models of a world that are there, the base first."""
    return ["base", *(r.name for r in RECIPES if model_dir(where.name, r.name).is_dir())]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--world", default="tiny")
    parser.add_argument("--budget", type=Budget, default=Budget.STANDARD)
    parser.add_argument("--clean", type=int, default=repairs.CLEAN, help="clean captions for a repair's accuracy")
    parser.add_argument("--no-fix", action="store_true")
    parser.add_argument("--only-fix", action="store_true", help="repair with the true trigger, without a scan before")
    given = parser.parse_args(arguments)
    where, budget = world(given.world), given.budget
    run = {
        "command": "python -m benchmarks " + " ".join(sys.argv[1:] if arguments is None else arguments),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": table.versions(),
    }
    for name in given.names or names(where):
        folder, info = model_dir(where.name, name), info_path(where, name)
        if name != "base" and not info.exists():
            parser.error(f"{info} does not exist: what {name} should be is not known yet")
        case = read_case(info) if info.exists() else None
        trigger = json.loads(info.read_text())["trigger"] if info.exists() else None
        result = None if given.only_fix else detect(folder, ScanOptions(budget=budget))
        if result is not None:
            table.keep("scan", where.name, name, scan_row(result, trigger) | {"budget": budget.value, "run": run})
        if case and case.trigger and not given.no_fix:
            with tempfile.TemporaryDirectory() as room:
                options = FixOptions(out=Path(room) / "fixed", scan=ScanOptions(budget=budget))
                row = repairs.measure_repair(where, case, folder, options, result, given.clean)
            table.keep("repair", where.name, name, row | {"budget": budget.value, "run": run})
    return 0


if __name__ == "__main__":
    sys.exit(main())
